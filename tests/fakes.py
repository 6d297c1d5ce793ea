"""Doubles that ship with the tests: a head that computes nothing, and a sink that can be waited on."""

import collections
import itertools
import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from actors.seams import HeadLost, HeadTaken
from cluster.engine.events import Event, Failed, Finish, Sampled, Started
from model.batch import Chunk, HeadInfo, NewSequence, SampledToken, SequenceFault, StepFailure, StepPlan, StepResult

PATIENCE = 20.0  # seconds until a wait gives up; reached only by a test that fails

FAULTS = {-1: "numeric", -2: "constraint"}  # what a head answers where these are sampled

Sample = Callable[[NewSequence, list[int]], int]  # the sequence as admitted, all its tokens -> the next one


def hashed(vocab: int) -> Sample:
    """Each next token follows from all before it, the seed and the output's index, as a model's does."""

    def sample(new: NewSequence, token_ids: list[int]) -> int:
        return zlib.crc32(repr((token_ids, new.sampling.seed, new.sampling.output_index)).encode()) % vocab

    return sample


def scripted(outputs: Iterable[int]) -> Sample:
    """Every sequence puts out these tokens, whatever its prompt."""
    tokens = list(outputs)
    return lambda new, token_ids: tokens[len(token_ids) - new.prompt_length]


def continuation(sample: Sample, new: NewSequence, count: int) -> list[int]:
    """What a sequence puts out when nothing disturbs it."""
    token_ids = list(new.token_ids)
    for _ in range(count):
        token_ids.append(sample(new, token_ids))
    return token_ids[len(new.token_ids) :]


@dataclass(slots=True)
class _Held:
    """One sequence in a slot."""

    new: NewSequence
    token_ids: list[int]
    pages: list[int] = field(default_factory=list)
    computed: int | None = None  # None: it has not run in this slot yet


class FakeHead:
    """A `HeadHandle` that follows plans to the letter and asserts what a real head takes for granted: tokens are
    run once and in order, pages suffice, and every key that a query may see is one of the same text up to there,
    written by whichever sequence.

    `hold()` stops it before its next answer, `let(n)` allows n answers, `let_go()` frees it. `outcomes` are what
    comes of its next steps: an exception to raise, a StepFailure's kind, or "" for an answer. After a HeadLost it is
    a new head. `begin_errors` are raised by `begin`.
    """

    def __init__(
        self,
        page_count: int = 64,
        page_size: int = 4,
        window: int | None = None,
        sample: Sample | None = None,
        retries: int = 0,
    ) -> None:
        self.page_count, self.page_size, self.window = page_count, page_size, window
        self.sample, self.retries = sample or hashed(50), retries
        self.outcomes: collections.deque[str | Exception] = collections.deque()
        self.begin_errors: collections.deque[Exception] = collections.deque()
        self.epochs: list[int] = []
        self.plans: list[StepPlan] = []
        self.slots: dict[int, _Held] = {}
        self.incarnation = "head-0"
        self._written: dict[tuple[int, int], int] = {}  # (page, row) -> hash of the text up to there
        self._restarts = itertools.count(1)
        self._changed = threading.Condition()
        self._allowed: float = float("inf")
        self._under_way: collections.deque[StepPlan] = collections.deque()
        self._faulty: set[int] = set()

    # ---- the test's side ----

    def hold(self) -> None:
        """Give no answer from now on."""
        with self._changed:
            self._allowed = 0

    def let(self, steps: int = 1) -> None:
        """Give this many answers more."""
        with self._changed:
            self._allowed += steps
            self._changed.notify_all()

    def let_go(self) -> None:
        """Answer everything."""
        self.let(10**9)

    def wait_for_plan(self, when: Callable[[StepPlan], bool] = lambda plan: True) -> StepPlan:
        """Wait until a plan for which `when` holds is under way, and return it."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(when, self._under_way)), PATIENCE), (
                "the plan that was waited for did not come"
            )
            return next(filter(when, self._under_way))

    def restart(self) -> None:
        """Die and come back with an empty cache and another incarnation."""
        self.incarnation = f"head-{next(self._restarts)}"
        self.slots.clear()
        self._written.clear()

    # ---- HeadHandle ----

    def begin(self, epoch: int) -> HeadInfo:
        if self.begin_errors:
            raise self.begin_errors.popleft()
        if self.epochs and epoch <= self.epochs[-1]:
            raise HeadTaken(f"{epoch} is not above {self.epochs[-1]}", self.epochs[-1])
        self.epochs.append(epoch)
        self.slots.clear()
        self._faulty.clear()
        return HeadInfo(self.incarnation, self.page_count, self.page_size)

    def submit(self, plan: StepPlan) -> None:
        with self._changed:
            assert len(self._under_way) < 2, "a third plan is under way"
            self.plans.append(plan)
            self._under_way.append(plan)
            self._changed.notify_all()

    def poll(self, timeout: float | None) -> StepResult | StepFailure | None:
        with self._changed:
            wait = 0.02 if timeout is None else min(timeout, 0.02)  # a held engine can still be stopped at once
            if not self._changed.wait_for(lambda: self._allowed > 0, wait):
                return None
            self._allowed -= 1
            assert self._under_way, "nothing was submitted"
            plan = self._under_way.popleft()
            if self.outcomes and self.outcomes[0]:
                self._under_way.clear()  # what comes behind is not asked for any more
        outcome = self.outcomes.popleft() if self.outcomes else ""
        if isinstance(outcome, HeadLost):
            self.restart()
        if isinstance(outcome, Exception):
            raise outcome
        return StepFailure(plan.step, outcome, "as the test asked") if outcome else self.step(plan)

    # ---- the work ----

    def step(self, plan: StepPlan) -> StepResult | StepFailure:
        """Carry out a plan, checking it."""
        if (plan.epoch, plan.incarnation) != (self.epochs[-1] if self.epochs else plan.epoch, self.incarnation):
            return StepFailure(plan.step, "stale", f"this is {self.incarnation}")
        for slot in plan.release:
            del self.slots[slot]
            self._faulty.discard(slot)
        for new in plan.admit:
            assert new.slot not in self.slots, f"slot {new.slot} is taken"
            self.slots[new.slot] = _Held(new, list(new.token_ids))
        assert len({chunk.slot for chunk in plan.chunks}) == len(plan.chunks), "two chunks of one slot"
        for source, target in plan.copies:
            for row in range(self.page_size):
                self._written[target, row] = self._written.get((source, row), 0)
        chunks = [chunk for chunk in plan.chunks if chunk.slot not in self._faulty]
        for chunk in chunks:
            self._write(chunk)
        for chunk in chunks:
            self._read(chunk)
        sampled = [self._sampled(self.slots[chunk.slot]) for chunk in chunks if chunk.sample]
        tokens = [token for token in sampled if token.token_id >= 0]
        faults = [SequenceFault(t.slot, FAULTS[t.token_id], "as the test asked") for t in sampled if t.token_id < 0]
        self._faulty.update(fault.slot for fault in faults)
        routing = [(c.slot, _counts(c.length)) for c in plan.chunks if self.slots[c.slot].new.routing]
        total = _counts(sum(chunk.length for chunk in plan.chunks))
        return StepResult(
            plan.step, plan.epoch, tuple(tokens), total, tuple(routing), retries=self.retries, faults=tuple(faults)
        )

    def _write(self, chunk: Chunk) -> None:
        held = self.slots[chunk.slot]
        end = chunk.start + chunk.length
        assert chunk.length > 0, "an empty chunk"
        assert held.computed in (None, chunk.start), f"position {held.computed} is next, not {chunk.start}"
        assert end <= len(held.token_ids), "the chunk goes past the tokens"
        assert chunk.sample == (end == len(held.token_ids)), (
            "a token is sampled after the last known one, and only then"
        )
        held.pages.extend(chunk.new_pages)
        assert len(held.pages) == -(-end // self.page_size), "the page table ends with the chunk"
        for position in range(chunk.start, end):
            self._written[self._place(held, position)] = self._text(held, position)
        held.computed = end

    def _read(self, chunk: Chunk) -> None:
        held = self.slots[chunk.slot]
        first = 0 if self.window is None else max(0, chunk.start - self.window + 1)
        for key in range(first, chunk.start + chunk.length):
            found = self._written.get(self._place(held, key))
            assert found == self._text(held, key), f"key {key} of the sequence in slot {chunk.slot} is another's"

    def _place(self, held: _Held, position: int) -> tuple[int, int]:
        return held.pages[position // self.page_size], position % self.page_size

    def _text(self, held: _Held, position: int) -> int:
        return zlib.crc32(repr(held.token_ids[: position + 1]).encode())

    def _sampled(self, held: _Held) -> SampledToken:
        token = self.sample(held.new, held.token_ids)
        held.token_ids.append(token)
        if held.new.sampling.logprobs < 0:
            return SampledToken(held.new.slot, token)
        return SampledToken(held.new.slot, token, -0.5, tuple((i, -1.0) for i in range(held.new.sampling.logprobs)))


def _counts(tokens: int) -> tuple[tuple[int, ...], ...]:
    """Two layers of four experts; every token runs on two of them."""
    return ((tokens, tokens, 0, 0), (0, 0, tokens, tokens))


class Events:
    """An engine's sink: gathers what it tells of each sequence, and can be waited on. Each must start before its first
    token, and only once.
    """

    def __init__(self) -> None:
        self.started: dict[str, Started] = {}
        self.by_id: dict[str, list[Sampled | Failed]] = {}
        self.batches = 0
        self._changed = threading.Condition()

    def __call__(self, events: list[Event]) -> None:
        with self._changed:
            self.batches += 1
            for event in events:
                self._take(event)
            self._changed.notify_all()

    def _take(self, event: Event) -> None:
        if isinstance(event, Started):
            assert event.sequence_id not in self.started | self.by_id, f"{event} comes late"
            self.started[event.sequence_id] = event
            return
        assert isinstance(event, Failed) or event.sequence_id in self.started, f"{event} comes before its start"
        self.by_id.setdefault(event.sequence_id, []).append(event)

    def wait(self, when: Callable[[], bool]) -> None:
        """Wait until `when` holds after some batch."""
        with self._changed:
            assert self._changed.wait_for(when, PATIENCE), f"did not come; events so far: {self.by_id}"

    def ended(self, key: str) -> bool:
        """Whether the last event of a sequence has come."""
        last = self.by_id.get(key, [None])[-1]
        return isinstance(last, Failed) or (isinstance(last, Sampled) and last.finish is not None)

    def wait_for_end(self, *keys: str) -> None:
        """Wait for the last event of each."""
        self.wait(lambda: all(self.ended(key) for key in keys))

    def tokens(self, key: str) -> list[int]:
        """Token ids of a sequence so far."""
        return [event.token.token_id for event in self.by_id.get(key, []) if isinstance(event, Sampled)]

    def finish(self, key: str) -> Finish | None:
        """How a sequence finished, None if it has not or has failed."""
        last = self.by_id[key][-1]
        return last.finish if isinstance(last, Sampled) else None

    def failures(self) -> dict[str, str]:
        """Kind of failure by sequence."""
        return {k: e.kind for k, events in self.by_id.items() for e in events if isinstance(e, Failed)}
