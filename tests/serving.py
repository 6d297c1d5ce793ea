"""A real gateway in this process for tests: its event loop in a thread, so that tests are plain calls."""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from actors.seams import HeadHandle
from cluster.client.client import Client
from cluster.engine.engine import Engine, EngineConfig
from cluster.engine.generation import Generations
from cluster.engine.served_model import ServedModel
from cluster.gateway.rpc.server import Gateway
from cluster.launch.in_process import HeadOnly, InProcess
from cluster.launch.runtime import Runtime
from cluster.launch.server import Server
from cluster.settings.address import bind
from cluster.settings.certificates import Certificates
from cluster.settings.config import Config, load_config
from cluster.settings.sections import GatewaySection, LimitsSection
from cluster.settings.tokens import TokenFile
from tests.fakes import PATIENCE

Result = TypeVar("Result")

MESSAGE_BYTES = 1 << 20


class GivenHead:
    """A `Runtime` whose actors are there already: a head, and nothing to let go of."""

    def __init__(self) -> None:
        self.head: HeadHandle | None = None

    def start(self, stop: threading.Event) -> HeadOnly:
        assert self.head is not None
        return HeadOnly(self.head)

    def await_turn(self, stop: threading.Event, obstacle: Callable[[], str]) -> None:
        pass

    def abandon(self) -> None:
        pass


class Serving:
    """A `Server` on a gRPC port of its own; HTTP opens when asked for. Until `ready` or `start` it is starting."""

    def __init__(
        self,
        served: ServedModel,
        max_message_bytes: int = MESSAGE_BYTES,
        tokens: TokenFile | None = None,
        certificates: Certificates | None = None,
        limits: LimitsSection | None = None,
        config: Config | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.served = served
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)
        self._thread.start()
        gateway = GatewaySection(max_message_bytes=max_message_bytes)
        config = config or Config(gateway=gateway, limits=limits or LimitsSection())
        self._given = GivenHead()
        self._server = self.run(self._make(config, served, runtime or self._given, tokens, certificates))
        self.gateway: Gateway = self._server.gateway
        self.address = self.run(self.gateway.listen("127.0.0.1:0", certificates))
        self.client = Client(self.address)
        self.channel: Any = grpc.insecure_channel(self.address)

    async def _make(self, *given: Any) -> Server:
        return Server(*given)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run something on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def ready(self, head: HeadHandle, bounds: EngineConfig) -> "Serving":
        """Put an engine on this head behind it, and say so."""
        self._given.head, self._server.bounds = head, bounds
        return self.start()

    def start(self) -> "Serving":
        """Bring up what its runtime has, and say so."""
        self.run(self._server.start(threading.Event()))
        self.run(self._server.open())
        return self

    @cached_property
    def http(self) -> str:
        """HOST:PORT of its HTTP, which opens with the first look."""
        taken = bind("127.0.0.1:0")
        self.run(self._server._http.start(taken))
        return f"127.0.0.1:{taken.getsockname()[1]}"

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self._server.engine

    @property
    def generations(self) -> Generations:
        """The requests under way."""
        return self._server.generations

    def idle(self) -> None:
        """Wait until no sequence is left, then check that all it held is free."""
        done, engine = threading.Event(), self.engine
        for _ in range(int(PATIENCE / 0.005)):
            if not (engine.counters().running or engine.counters().waiting):
                break
            done.wait(0.005)
        assert (engine.counters().running, engine.counters().waiting) == (0, 0)
        engine.check()
        assert engine.counters().free_pages == engine.limits.page_count

    def close(self) -> None:
        """End everything."""
        self.client.close()
        self.channel.close()
        self.run(self._server.close(keep_actors=False))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


def serve_locally(
    served: ServedModel, *settings: str, tokens: TokenFile | None = None, certificates: Certificates | None = None
) -> Serving:
    """The checkpoint itself, with head and experts in this process."""
    config = load_config(None, {}, ["runtime=in_process", f"gateway.max_message_bytes={MESSAGE_BYTES}", *settings])
    silent: Callable[..., None] = lambda phase, progress: None  # noqa: E731
    runtime = InProcess(config, served.checkpoint, silent)
    return Serving(served, tokens=tokens, certificates=certificates, config=config, runtime=runtime).start()


@dataclass(frozen=True)
class Failure:
    """What a client is told of a failed call; `details` holds the names of all of them."""

    code: grpc.StatusCode
    reason: str
    text: str
    metadata: dict[str, str]
    details: list[str]
    fields: list[str]
    retry_seconds: float | None
    resource: str
    request_id: str
    trailing: dict[str, str | bytes]


def failure(call: Callable[[], object]) -> Failure:
    """Make a call that fails, and hold its status against what is promised of every one."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    trailing = {key: value for key, value in error.trailing_metadata() or ()}
    assert sum(len(key) + len(value) for key, value in trailing.items()) < 8000, "clients refuse long headers"
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error.code()} {error.details()}"
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, resource = error_details_pb2.RetryInfo(), error_details_pb2.ResourceInfo()
    request = error_details_pb2.RequestInfo()
    names = []
    for detail in status.details:
        names.append(detail.TypeName().rpartition(".")[2])
        for message in (info, bad, retry, resource, request):
            detail.Unpack(message)
    assert names.count("ErrorInfo") == 1
    assert info.domain == "eightwinds.dev"
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", info.reason)
    assert status.message and "Traceback" not in status.message
    return Failure(
        error.code(),
        info.reason,
        status.message,
        dict(info.metadata),
        names,
        [violation.field for violation in bad.field_violations],
        retry.retry_delay.ToMilliseconds() / 1000 if "RetryInfo" in names else None,
        resource.resource_name,
        request.request_id,
        trailing,
    )
