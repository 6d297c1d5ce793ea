"""Any course of arrivals, aborts, losses and steps, on pools small enough for preemption, watched from outside."""

import itertools
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.policy.scheduling.limits import Limits
from model.batch import StepPlan
from tests.scheduling import VOCAB, Bench, alone, sequence


@dataclass(frozen=True)
class Arrive:
    prompt: int
    max_tokens: int
    priority: int = 0
    stop_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    text: int = 0
    client: str = ""
    outputs: int = 1


@dataclass(frozen=True)
class Step:
    """A step; meanwhile the sequence with this index may be aborted, or the head be lost."""

    abort: int | None = None
    lose: bool = False


@dataclass(frozen=True)
class Abort:
    index: int


@dataclass(frozen=True)
class Lose:
    pass


Operation = Arrive | Step | Abort | Lose

ARRIVALS = st.builds(
    Arrive,
    st.integers(1, 12) | st.integers(1, 40),
    st.integers(1, 5) | st.integers(8, 24),
    st.integers(-2, 2),
    st.lists(st.integers(0, VOCAB - 1), max_size=1).map(tuple),
    st.integers(0, 5),
    st.integers(0, 3),
    st.sampled_from(["", "", "ann", "bob"]),
    st.sampled_from([1, 1, 1, 2, 4]),
)
STEPS = st.builds(Step, st.none() | st.none() | st.integers(0, 30), st.sampled_from([False] * 9 + [True]))
OTHERS = st.builds(Abort, st.integers(0, 30)) | st.just(Lose())
OPERATIONS = st.builds(
    list.__add__,  # several at first, so that they compete
    st.lists(ARRIVALS, min_size=4, max_size=8),
    st.lists(st.one_of(ARRIVALS, STEPS, STEPS, STEPS, OTHERS), max_size=40),
)

CROWD = [*[Arrive(8, 12)] * 5, Step(), Step(), Arrive(30, 3, priority=1), Step(), Arrive(2, 9)]


@settings(max_examples=500, deadline=None)
@given(
    operations=OPERATIONS,
    slots=st.integers(2, 6),
    budget=st.integers(1, 40),
    page_size=st.integers(1, 6),
    window=st.none() | st.integers(1, 40),
    room=st.sampled_from([1, 1.5, 2.5, 20]),
    caching=st.booleans(),
)
@example(operations=CROWD, slots=4, budget=6, page_size=2, window=None, room=1, caching=True)
@example(operations=CROWD, slots=5, budget=20, page_size=4, window=9, room=1, caching=True)
@example(operations=CROWD, slots=5, budget=3, page_size=4, window=None, room=1.2, caching=False)
def test_every_sequence_gets_its_tokens_whatever_happens(
    operations: list[Operation],
    slots: int,
    budget: int,
    page_size: int,
    window: int | None,
    room: float,
    caching: bool,
) -> None:
    longest = max((a.prompt + a.max_tokens for a in operations if isinstance(a, Arrive)), default=1)
    least = Limits(slots, budget, 0, page_size, window).pages_of(longest)
    course = Course(Limits(slots, budget, int(least * room), page_size, window, caching))
    for operation in operations:
        course.take(operation)
    course.finish()
    for key, (out, stopped) in course.expected.items():
        if key in course.aborted:
            assert course.tokens(key) == out[: len(course.tokens(key))]
        else:
            last = course.sampled[key][-1]
            assert (course.tokens(key), last.stopped, last.exhausted) == (out, stopped, not stopped)
    assert course.scheduler.pool.free_count == course.limits.page_count


@dataclass
class Course(Bench):
    """A bench that takes operations and holds each plan against the rules."""

    expected: dict[str, tuple[list[int], bool]] = field(default_factory=dict)
    rank: dict[str, tuple[int, int]] = field(default_factory=dict)  # lower goes first
    aborted: set[str] = field(default_factory=set)
    client: dict[str, str] = field(default_factory=dict)

    def take(self, operation: Operation) -> None:
        match operation:
            case Arrive():
                self.arrive(operation)
            case Step():
                self.step_with(operation)
            case Abort():
                self.abort(operation.index)
            case Lose():
                self.lose()

    def arrive(self, a: Arrive) -> None:
        family = f"family {len(self.expected)}" if a.outputs > 1 else ""
        for output in range(a.outputs):
            key = f"s{len(self.expected)}"
            s = sequence(
                key,
                a.prompt,
                a.max_tokens,
                a.priority,
                a.stop_ids,
                a.min_tokens,
                text=a.text,
                client=a.client,
                family=family,
                output_index=output,
            )
            self.expected[key], self.rank[key] = alone(s), (-a.priority, len(self.expected))
            self.client[key] = a.client
            self.add(s)

    def abort(self, index: int) -> None:
        keys = [s.id for s in self.scheduler.sequences()]
        if keys:
            key = keys[index % len(keys)]
            self.aborted.add(key)
            assert self.scheduler.abort(key)
            self.scheduler.check()

    def lose(self) -> None:
        self.head.restart()
        self.scheduler.requeue_all()
        self.scheduler.check()
        assert not self.scheduler.running()

    def step_with(self, meanwhile: Step) -> None:
        plan = self.plan_if_any()
        if plan is None:
            return
        result = self.run(plan)
        if meanwhile.abort is not None:
            self.abort(meanwhile.abort)
        if meanwhile.lose:
            self.lose()
        else:
            self.commit(plan, result)

    def plan_if_any(self) -> StepPlan | None:
        before = {s.id: s.pending for s in self.scheduler._running}
        plan = super().plan_if_any()
        assert (plan is not None) == self.scheduler.has_work, "there is work, and nothing runs"
        if plan is None:
            return None
        running = {s.id: s for s in self.scheduler._running}
        entered = {key for key, s in running.items() if s.slot in {new.slot for new in plan.admit}}
        planned = {key for key, s in running.items() if s.planned}
        waiting = {s.id for s in self.scheduler.queue}
        assert plan.chunks, "a step without chunks"
        assert sum(c.length for c in plan.chunks) <= self.limits.max_tokens_per_step
        assert len(running) <= self.limits.max_running
        assert {c.slot for c in plan.chunks} == {running[key].slot for key in planned}

        for one, other in itertools.product(entered, waiting):
            own = self.client[one] == self.client[other]
            behind = self.rank[one] < self.rank[other] if own else self.rank[one][0] <= self.rank[other][0]
            assert behind, f"{one} entered before {other}"
        preempted = {key for key in before if key in waiting | entered}
        assert not preempted or len(before) > 1, "alone it has room"
        stayed = before.keys() - preempted
        slots = Counter(self.client[key] for key in before)
        newcomers = {key for key in waiting | entered if not slots[self.client[key]]}
        for one, other in itertools.product(preempted, stayed):
            if self.rank[one] < self.rank[other]:
                assert self.client[one] != self.client[other], f"{one} gave way to {other}, which comes later"
                assert slots[self.client[one]] > 1, f"{one} was its client's only one"
                for_newcomer = any(self.rank[new][0] <= self.rank[one][0] for new in newcomers)
                assert for_newcomer, f"{one} gave way to {other}, which comes later"
        assert not entered or stayed <= planned, "one entered while another, which was here, waits for pages"
        halted = {key for key in before if before[key] == 1} - planned - preempted
        decoding = sum(before.get(key) == 1 for key in planned)
        assert not halted or decoding == self.limits.max_tokens_per_step, f"{halted} could have put out a token"
        return plan
