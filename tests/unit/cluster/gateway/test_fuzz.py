"""Whatever is sent ends in a documented status, and nothing of it stays behind.

EIGHTWINDS_FUZZ is the number of requests, EIGHTWINDS_FUZZ_SEED where they begin; `make fuzz` sends 20,000.
"""

import asyncio
import base64
import logging
import os
from collections import Counter
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from cluster.engine.served_model import ServedModel
from tests.fuzz import METHODS, SERVICE, Attack, attack
from tests.serving import serve_locally

COUNT = int(os.environ.get("EIGHTWINDS_FUZZ", "5000"))
SEED = int(os.environ.get("EIGHTWINDS_FUZZ_SEED", "1"))
CLIENTS = 32

DOCUMENTED = {
    StatusCode.OK,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.CANCELLED,
}
WITHOUT_DETAILS = {StatusCode.OK, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED}


async def outcome(channel: grpc.aio.Channel, a: Attack) -> tuple[StatusCode, str]:
    """Code and reason of a request's end."""
    metadata = [("x-request-id", a.request_id)] if a.request_id else []
    streamed = a.method == "GenerateStream"
    method: Any = (channel.unary_stream if streamed else channel.unary_unary)(SERVICE + a.method)
    call: Any = method(a.message, timeout=a.deadline, metadata=metadata)
    if a.leaves:
        asyncio.get_running_loop().call_later(a.deadline / 20, call.cancel)
    try:
        if streamed:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        if error.code() in WITHOUT_DETAILS:
            return error.code(), ""
        status = rpc_status.from_call(error)
        assert status is not None, f"{error.code()} without details: {error.details()}"
        info = error_details_pb2.ErrorInfo()
        assert sum(detail.Unpack(info) for detail in status.details if detail.Is(info.DESCRIPTOR)) == 1
        return error.code(), info.reason
    except asyncio.CancelledError:
        return StatusCode.CANCELLED, ""
    return StatusCode.OK, ""


async def send(address: str) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    numbers = iter(range(COUNT))

    async def client(channel: grpc.aio.Channel) -> None:
        for number in numbers:
            a = attack(SEED, number)
            code, reason = await asyncio.wait_for(outcome(channel, a), a.deadline + 30)
            said = f"request {number} of seed {SEED}, {a.method}: {code.name} {reason}"
            assert code in DOCUMENTED, f"{said}\n{base64.b64encode(a.message)!r}"
            found[code.name, reason] += 1

    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.gather(*(client(channel) for _ in range(CLIENTS)))
    return found


def test_nothing_that_is_sent_does_any_harm(demo: ServedModel, caplog: pytest.LogCaptureFixture) -> None:
    """The KV cache holds 1,024 tokens, a quarter of the context, so that requests are too large for it alone, too."""
    server = serve_locally(
        demo, "kv.memory_bytes=6291456", "scheduler.max_tokens_per_step=64", "gateway.max_queued_requests=24"
    )
    try:
        with caplog.at_level(logging.WARNING):
            found = asyncio.run(send(server.address))
            print(dict(found.most_common()))
            server.idle()
        assert not [record for record in caplog.records if record.exc_info], "a traceback for what a client sent"
        assert len(caplog.records) < COUNT / 100, [record.getMessage() for record in caplog.records[:20]]
        assert server.engine.alive
        codes = Counter(code for code, _ in found.elements())
        assert sum(codes.values()) == COUNT
        assert min(codes[code.name] for code in DOCUMENTED - {StatusCode.NOT_FOUND}) > 0, (
            "the attacks are too one-sided"
        )
        assert len(METHODS) == 5, "a new method wants to be attacked, too"
    finally:
        server.close()
