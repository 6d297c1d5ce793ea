"""A scheduler on a head that checks every plan: what the tests of `cluster.policy.scheduling.scheduler` drive."""

from dataclasses import dataclass, field

from cluster.policy.scheduling.limits import Limits
from cluster.policy.scheduling.scheduler import Scheduler
from cluster.policy.scheduling.sequence import NextToken, Sequence, SequenceRequest
from model.batch import NewSequence, SamplingParams, StepPlan, StepResult
from tests.fakes import FakeHead, continuation, hashed

VOCAB = 7  # small, so that stop ids are met
DRAW = hashed(VOCAB)


def sequence(
    key: str,
    prompt: int = 5,
    max_tokens: int = 3,
    priority: int = 0,
    stop_ids: tuple[int, ...] = (),
    min_tokens: int = 0,
    routing: bool = False,
    text: int | None = None,
    client: str = "",
    family: str = "",
    output_index: int = 0,
) -> Sequence:
    """A sequence with a seed of its own, and a prompt of its own unless `text` names one."""
    name = sum(map(ord, key))
    sampling = SamplingParams(seed=name, min_tokens=min_tokens, output_index=output_index)
    first = name if text is None else text
    prompt_ids = tuple((first + i * i) % VOCAB for i in range(prompt))
    return Sequence(
        SequenceRequest(
            prompt_ids,
            sampling,
            max_tokens,
            frozenset(stop_ids),
            priority,
            routing,
            client,
            sequence_id=key,
            family=family,
        )
    )


@dataclass
class Bench:
    """A scheduler on a head, with `check()` after everything."""

    limits: Limits
    sampled: dict[str, list[NextToken]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.limits)
        self.head = FakeHead(self.limits.page_count, self.limits.page_size, self.limits.window, DRAW)

    def add(self, *sequences: Sequence) -> None:
        for s in sequences:
            self.scheduler.add(s)
            self.scheduler.check()

    def plan(self) -> StepPlan:
        plan = self.plan_if_any()
        assert plan is not None, "there is nothing to run"
        return plan

    def plan_if_any(self) -> StepPlan | None:
        plan = self.scheduler.plan(7, self.head.incarnation)
        self.scheduler.check()
        return plan

    def run(self, plan: StepPlan) -> StepResult:
        result = self.head.step(plan)
        assert isinstance(result, StepResult)
        return result

    def commit(self, plan: StepPlan, result: StepResult) -> None:
        for token in self.scheduler.commit(plan, result):
            self.sampled.setdefault(token.sequence.id, []).append(token)
        self.scheduler.check()

    def step(self) -> StepPlan:
        plan = self.plan()
        self.commit(plan, self.run(plan))
        return plan

    def finish(self) -> list[StepPlan]:
        plans = []
        while self.scheduler.has_work:
            plans.append(self.step())
            assert sum(len(plan.admit) for plan in plans) < 200, "it begins again and again"
        return plans

    def tokens(self, key: str) -> list[int]:
        return [t.token.token_id for t in self.sampled.get(key, [])]


def alone(s: Sequence) -> tuple[list[int], bool]:
    """What a fresh sequence puts out by itself, and whether a stop id ends it."""
    r = s.request
    new = NewSequence(0, tuple(s.token_ids), s.prompt_length, r.sampling)
    out = continuation(DRAW, new, r.max_tokens)
    stops = [i for i, token in enumerate(out) if token in r.stop_ids and i + 1 >= r.sampling.min_tokens]
    return (out[: stops[0] + 1], True) if stops else (out, False)
