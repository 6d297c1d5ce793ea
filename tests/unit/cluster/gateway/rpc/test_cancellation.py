"""Clients that leave: their slots and pages are free at the next step, and nobody else notices."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from cluster.client.client import Client
from protos.eightwinds.v1 import inference_pb2 as pb
from protos.eightwinds.v1 import inference_pb2_grpc
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Serving

ServeFake = Callable[..., Serving]


def endless(n: int = 1) -> pb.GenerateRequest:
    """A request that runs for as long as anyone would test."""
    return pb.GenerateRequest(
        prompt=pb.Prompt(text="Once upon a time"), stopping=pb.Stopping(max_tokens=4000, ignore_eos=True), n=n
    )


def code_of(call: Callable[[], Any]) -> StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code: StatusCode = caught.value.code()
    return code


@pytest.mark.parametrize("messages", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 4])
def test_a_stream_that_is_cancelled_frees_what_it_holds(messages: int, n: int, serving: Serving) -> None:
    stream = serving.client.stub.GenerateStream(endless(n))
    for _ in range(messages):
        next(stream)
    assert serving.engine.counters().running + serving.engine.counters().waiting == n
    assert serving.engine.counters().free_pages < serving.engine.limits.page_count
    stream.cancel()
    serving.idle()
    serving.generations.check()


def test_a_unary_call_that_is_cancelled_frees_what_it_holds(serve_fake: ServeFake) -> None:
    head = FakeHead(page_count=1100)
    server = serve_fake(head)
    head.hold()
    call = server.client.stub.Generate.future(endless(3))
    head.wait_for_plan()
    call.cancel()
    head.let_go()
    server.idle()
    server.generations.check()


@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
def test_a_deadline_that_passes_frees_what_it_holds(method: str, serving: Serving) -> None:
    stub = serving.client.stub
    call = (
        (lambda: stub.Generate(endless(2), timeout=0.2))
        if method == "Generate"
        else (lambda: list(stub.GenerateStream(endless(2), timeout=0.2)))
    )
    assert code_of(call) is StatusCode.DEADLINE_EXCEEDED
    serving.idle()


def test_a_client_that_is_gone_frees_what_it_holds(serving: Serving) -> None:
    with Client(serving.address) as client:
        stream, seen = client.stream(endless(2)), set[int]()
        while len(seen) < 2:
            seen.add(next(stream).index)
        assert serving.engine.counters().running == 2
    serving.idle()
    assert code_of(lambda: next(stream)) is StatusCode.CANCELLED


def test_one_that_waits_in_the_queue_may_leave(serve_fake: ServeFake) -> None:
    head = FakeHead(page_count=1100)
    server = serve_fake(head, max_running=1)
    head.hold()
    first = server.client.stub.Generate.future(endless())
    head.wait_for_plan()
    assert code_of(lambda: server.client.generate(endless(3), timeout=0.1)) is StatusCode.DEADLINE_EXCEEDED
    first.cancel()
    head.let_go()
    server.idle()


def test_a_client_that_does_not_read_holds_nothing_for_long(serve_fake: ServeFake) -> None:
    """The engine runs ahead of it; its messages wait in the gateway until it leaves."""
    server = serve_fake(FakeHead(page_count=1100))
    request = endless(4)
    request.stopping.max_tokens, request.output.logprobs = 300, 20
    small_windows = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1000)]
    with grpc.insecure_channel(server.address, small_windows) as channel:
        stream = inference_pb2_grpc.InferenceServiceStub(channel).GenerateStream(request)
        next(stream)
        server.idle()
        assert not server.run(server.generations.drained(0.05)), "its messages went somewhere; ask for more of them"
        stream.cancel()
        assert server.run(server.generations.drained(PATIENCE))
    server.generations.check()


def test_others_go_on_when_one_leaves(serving: Serving) -> None:
    request = endless()
    request.stopping.max_tokens = 30
    request.sampling.seed = 11
    alone = serving.client.generate(request)
    with ThreadPoolExecutor() as pool:
        leaving = serving.client.stub.GenerateStream(endless(2))
        next(leaving)
        staying = pool.submit(serving.client.generate, request)
        next(leaving)
        leaving.cancel()
        assert staying.result(PATIENCE).outputs == alone.outputs
    serving.idle()
