"""Work before the queue is done beside the streams, not before them."""

import threading
from collections.abc import Iterator

import pytest
from grpc import StatusCode

from cluster.client.messages import text_request
from cluster.engine.served_model import ServedModel
from cluster.gateway.examination.pool import SMALL_BYTES
from cluster.settings.request_options import Options
from cluster.settings.sections import LimitsSection
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.engines import engine_bounds
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Serving, failure

LONG = [300] * SMALL_BYTES  # two bytes each


@pytest.fixture
def server(demo: ServedModel) -> Iterator[Serving]:
    server = Serving(demo, limits=LimitsSection(examinations=1)).ready(FakeHead(), engine_bounds())
    yield server
    server.close()


@pytest.fixture
def busy(server: Serving) -> Iterator[threading.Event]:
    """The lane for large work is taken until the event is set."""
    begun, gate = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(PATIENCE)

    running = server.gateway._examination._large.thread.submit(work)
    assert begun.wait(PATIENCE)
    yield gate
    gate.set()
    running.result(PATIENCE)


def test_long_ids_become_text_beside_the_streams(server: Serving, busy: threading.Event) -> None:
    long = server.client.stub.Detokenize.future(pb.DetokenizeRequest(token_ids=LONG), timeout=PATIENCE)
    short = server.client.stub.Detokenize(pb.DetokenizeRequest(token_ids=[300]), timeout=PATIENCE)
    request = text_request("My favourite", Options(max_tokens=2, ignore_eos=True))
    assert server.client.generate(request, timeout=PATIENCE).usage.completion_tokens == 2
    assert not long.done(), "it waits, and nobody waits for it"
    busy.set()
    assert len(long.result(PATIENCE).text) >= len(short.text) * len(LONG) - 1


def test_a_tenant_with_enough_waiting_is_told_to_come_again(server: Serving, busy: threading.Event) -> None:
    text = "hello " * (SMALL_BYTES // 5)
    tokenize = server.client.stub.Tokenize
    request = pb.TokenizeRequest(prompt=pb.Prompt(text=text))
    calls, ended = [tokenize.future(request, timeout=PATIENCE) for _ in range(3)], threading.Event()
    for call in calls:
        call.add_done_callback(lambda _: ended.set())
    assert ended.wait(PATIENCE), "one is refused while the others wait"
    busy.set()
    told = failure(lambda: [call.result(PATIENCE) for call in calls if call.exception(PATIENCE)])
    assert (told.code, told.reason) == (StatusCode.RESOURCE_EXHAUSTED, "EXAMINATION_BUSY")
    assert told.retry_seconds is not None and told.retry_seconds > 0


def test_a_constrained_request_does_not_wait_behind_a_long_one(server: Serving, busy: threading.Event) -> None:
    request = text_request("My favourite", Options(max_tokens=2, regex="[a-z]+"))
    told = failure(lambda: server.client.generate(text_request("x", Options(regex="[")), timeout=PATIENCE))
    assert told.fields == ["constraint.regex"], "it has been compiled, while the other thread is taken"
    assert request.constraint.regex
