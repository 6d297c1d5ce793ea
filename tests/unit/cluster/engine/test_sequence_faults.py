"""A sequence that cannot go on (no numbers, no allowed text) fails with a status of its own, and all others go on."""

from collections.abc import Callable

import pytest
from grpc import StatusCode

from protos.eightwinds.v1 import inference_pb2 as pb
from tests.engines import Make, check_idle, expected, request
from tests.fakes import Events, FakeHead
from tests.serving import Serving, failure

ServeFake = Callable[..., Serving]


def test_a_sequence_that_cannot_go_on_fails_alone_and_what_it_wrote_is_found_by_nobody(
    make: Make, head: FakeHead, events: Events
) -> None:
    sound = head.sample
    head.sample = lambda new, ids: -1 if new.token_ids[0] == ord("b") and len(ids) > 20 else sound(new, ids)
    engine = make()
    requests = [request("a", max_tokens=12), request("b", prompt=14, max_tokens=12), request("c", max_tokens=12)]
    engine.submit(requests)
    events.wait_for_end("a", "b", "c")
    assert events.failures() == {"b": "numeric"}
    for r in (requests[0], requests[2]):
        assert events.tokens(r.sequence_id) == expected(head, r)
    assert engine.statistics.counters.faults == {"numeric": 1, "constraint": 0}
    engine.submit([request("bb", prompt=14, max_tokens=2)])
    events.wait_for_end("bb")
    assert events.started["bb"].cached_tokens == 0
    check_idle(engine, events)


@pytest.mark.parametrize(
    ("sampled", "code", "reason", "details"),
    [
        (-1, StatusCode.INTERNAL, "NUMERIC_FAULT", ["ErrorInfo", "RequestInfo"]),
        (-2, StatusCode.ABORTED, "CONSTRAINT_FAILED", ["ErrorInfo"]),
    ],
)
def test_an_output_that_cannot_go_on_is_a_status_of_its_own(
    sampled: int, code: StatusCode, reason: str, details: list[str], serve_fake: ServeFake
) -> None:
    head = FakeHead(sample=lambda new, ids: sampled if len(ids) - new.prompt_length == 1 else 7)
    serving = serve_fake(head)

    def told(call: Callable[[pb.GenerateRequest], object]) -> tuple[StatusCode, str, list[str]]:
        wanted = pb.GenerateRequest(prompt=pb.Prompt(text="My"), stopping=pb.Stopping(max_tokens=3, ignore_eos=True))
        found = failure(lambda: call(wanted))
        return found.code, found.reason, found.details

    for call in (serving.client.generate, lambda r: list(serving.client.stream(r))):
        assert told(call) == (code, reason, details)
    assert sum(serving.engine.statistics.counters.faults.values()) == 2
    serving.idle()
