"""What the tests of the engine share: requests, and what is expected of them."""

from collections.abc import Callable

from cluster.engine.engine import Engine
from cluster.engine.request import SequenceRequest
from model.batch import NewSequence, SamplingParams
from tests.fakes import Events, FakeHead, continuation

Make = Callable[..., Engine]


def request(key: str, prompt: int = 5, max_tokens: int = 4, stop_ids: frozenset[int] = frozenset()) -> SequenceRequest:
    """A request whose prompt and seed follow from the first letter of its key."""
    first = ord(key[0])
    return SequenceRequest(key, tuple(range(first, first + prompt)), SamplingParams(seed=first), max_tokens, stop_ids)


def expected(head: FakeHead, r: SequenceRequest) -> list[int]:
    """What it puts out when nothing disturbs it."""
    return continuation(head.draw, NewSequence(0, r.prompt_ids, len(r.prompt_ids), r.sampling), r.max_tokens)


def check_idle(engine: Engine, events: Events) -> None:
    """Once one more request is through, earlier aborts have been taken in: nothing may be held any more."""
    engine.submit([request("z", max_tokens=1)])
    events.wait_for_end("z")
    assert (engine.running_count, engine.waiting_count) == (0, 0)
    engine.check()
    assert engine.free_pages == engine.limits.page_count
    assert engine.alive
