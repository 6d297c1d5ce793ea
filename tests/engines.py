"""What the tests of the engine share: requests, and what is expected of them."""

from collections.abc import Callable, Iterable

from cluster.engine.engine import Engine, EngineConfig
from cluster.policy.scheduling.limits import Limits, QueueBounds
from cluster.policy.scheduling.sequence import SequenceRequest
from model.batch import NewSequence, SamplingParams
from model.text.tokenizer import Tokenizer
from tests.fakes import Events, FakeHead, continuation

Make = Callable[..., Engine]


def engine_bounds(
    max_running: int = 4,
    max_tokens_per_step: int = 64,
    max_queued: int = 8,
    window: int | None = None,
    head_grace: float = 60.0,
) -> EngineConfig:
    """Small ones; the rest as a server has them."""
    limits = Limits(max_running, max_tokens_per_step, 0, 16, window)
    queue = QueueBounds(max_queued, 1 << 20)
    return EngineConfig(limits, queue, head_grace, prefill_slowdown=1.5, prefixes_by_tenant=True)


def request(key: str, prompt: int = 5, max_tokens: int = 4, stop_ids: frozenset[int] = frozenset()) -> SequenceRequest:
    """A request whose prompt and seed follow from the first letter of its key."""
    first = ord(key[0])
    prompt_ids = tuple(range(first, first + prompt))
    return SequenceRequest(prompt_ids, SamplingParams(seed=first), max_tokens, stop_ids, sequence_id=key)


def expected(head: FakeHead, r: SequenceRequest) -> list[int]:
    """What it puts out when nothing disturbs it."""
    return continuation(head.sample, NewSequence(0, r.prompt_ids, len(r.prompt_ids), r.sampling), r.max_tokens)


def steps_of(engine: Engine) -> float:
    """How many steps there have been."""
    return sum(times.cumulative()[-1][1] for times in engine.statistics.counters.step_seconds.values())


def check_idle(engine: Engine, events: Events) -> None:
    """Once one more request is through, earlier aborts have been taken in: nothing may be held any more."""
    engine.submit([request("z", max_tokens=1)])
    events.wait_for_end("z")
    assert (engine.counters().running, engine.counters().waiting) == (0, 0)
    engine.check()
    assert engine.counters().free_pages == engine.limits.page_count
    assert engine.alive


def output_text(tokenizer: Tokenizer, ids: Iterable[int], special_tokens: bool = False) -> str:
    """The text of an output, decoded as one piece."""
    return b"".join(tokenizer.token_bytes(i, special_tokens=special_tokens) for i in ids).decode(errors="replace")
