"""The server from starting over serving to drained; its health and its port."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cluster.engine.served_model import ServedModel
from cluster.gateway.rpc.server import Gateway
from cluster.settings.sections import LimitsSection
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.engines import engine_bounds
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Serving, failure

ServeFake = Callable[..., Serving]
SERVICE = "eightwinds.v1.InferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
REQUEST = pb.GenerateRequest(prompt=pb.Prompt(text="My favourite"), stopping=pb.Stopping(max_tokens=4, ignore_eos=True))
BOUNDS = engine_bounds()


def health(server: Serving, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    status: int = health_pb2_grpc.HealthStub(server.channel).Check(request, timeout=PATIENCE).status
    return status


@pytest.fixture
def starting(demo: ServedModel) -> Iterator[Serving]:
    """A server without an engine."""
    server = Serving(demo)
    yield server
    server.close()


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_is_serving_only_between_ready_and_drain(service: str, starting: Serving) -> None:
    assert health(starting, service) == NOT_SERVING
    head = FakeHead()
    starting.ready(head, BOUNDS)
    assert health(starting, service) == SERVING
    head.hold()
    running = starting.client.stub.Generate.future(REQUEST)
    head.wait_for_plan()
    with ThreadPoolExecutor() as pool:
        watch = health_pb2_grpc.HealthStub(starting.channel).Watch(health_pb2.HealthCheckRequest(service=service))
        assert next(watch).status == SERVING
        drained = pool.submit(lambda: starting.run(starting.gateway.drain(PATIENCE)))
        assert next(watch).status == NOT_SERVING
        assert health(starting, service) == NOT_SERVING
        watch.cancel()
        head.let_go()
        assert drained.result(PATIENCE) is True
    assert running.result(PATIENCE).outputs[0].finish.reason == pb.FINISH_REASON_LENGTH


def test_health_of_an_unknown_service_is_not_found(serving: Serving) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health(serving, "nobody")
    assert caught.value.code() is StatusCode.NOT_FOUND


def test_while_it_drains_running_streams_finish_and_new_requests_are_refused(serve_fake: ServeFake) -> None:
    head = FakeHead()
    server = serve_fake(head)
    head.hold()
    pieces: queue.Queue[pb.GenerateStreamResponse | None] = queue.Queue()

    def read() -> None:
        for message in server.client.stream(REQUEST):
            pieces.put(message)
        pieces.put(None)

    reader = threading.Thread(target=read)
    reader.start()
    head.let()
    assert not pieces.get(timeout=PATIENCE).HasField("finish")  # type: ignore[union-attr]
    with ThreadPoolExecutor() as pool:
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        drained = pool.submit(lambda: server.run(server.gateway.drain(PATIENCE)))
        assert next(watch).status == NOT_SERVING
        told = failure(lambda: server.client.generate(REQUEST))
        assert (told.code, told.reason, told.details) == (
            StatusCode.UNAVAILABLE,
            "DRAINING",
            ["ErrorInfo", "RetryInfo"],
        )
        assert not server.client.models()[0].ready
        watch.cancel()
        assert not drained.done()
        head.let_go()
        assert drained.result(PATIENCE) is True
    reader.join(PATIENCE)
    rest = list(iter(lambda: pieces.get(timeout=PATIENCE), None))
    assert rest[-1].finish.reason == pb.FINISH_REASON_LENGTH


@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
def test_what_outlives_the_grace_ends_with_unavailable_and_details(method: str, serve_fake: ServeFake) -> None:
    head = FakeHead()
    server = serve_fake(head)
    head.hold()
    stub = server.client.stub
    with ThreadPoolExecutor() as pool:
        call = (
            (lambda: stub.Generate(REQUEST)) if method == "Generate" else (lambda: list(stub.GenerateStream(REQUEST)))
        )
        told = pool.submit(failure, call)
        head.wait_for_plan()
        assert server.run(server.gateway.drain(0.01)) is False
        outcome = told.result(PATIENCE)
    assert (outcome.code, outcome.reason) == (StatusCode.UNAVAILABLE, "ENGINE_STOPPED")
    assert outcome.details == ["ErrorInfo", "RetryInfo"]
    head.let_go()
    server.idle()


def test_an_idle_server_drains_without_any_grace(serve_fake: ServeFake) -> None:
    server = serve_fake(FakeHead())
    server.client.generate(REQUEST)
    assert server.run(server.gateway.drain(0)) is True


def test_a_second_server_on_the_port_is_told_so(serving: Serving, demo: ServedModel) -> None:
    second = Serving(demo)
    try:
        with pytest.raises(OSError, match=f"cannot listen on {serving.address}"):
            second.run(_listen_on(second, serving.address))
    finally:
        second.close()


async def _listen_on(server: Serving, address: str) -> str:
    return await Gateway(server.served, 1000, None, LimitsSection()).listen(address)
