"""Decides what each step runs: a data structure, not a process. Pure.

`plan()` gives the next StepPlan, `commit()` takes its result. Sequences join and leave at every step; prefill and
decode share a token budget, and long prompts are cut into chunks. When pages run out, the sequence that came last
is preempted: it gives its pages back and is run again from its tokens later, to the same effect.
"""

import bisect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.policy.blocks import BlockPool
from cluster.policy.sequence import Sequence
from model.batch import Chunk, NewSequence, SampledToken, StepPlan, StepResult


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a step: sequences in slots, tokens per step, KV pages and their size, the sliding window."""

    max_running: int
    max_tokens_per_step: int
    page_count: int
    page_size: int
    window: int | None = None

    def pages_of(self, tokens: int) -> int:
        """The most pages that a sequence of `tokens` ever holds at once: at most ceil((W + chunk) / page) + 1."""
        if self.window is not None:
            tokens = min(tokens, self.window + self.max_tokens_per_step + self.page_size)
        return -(-tokens // self.page_size)

    def fit(self, tokens: int) -> bool:
        """Whether a sequence of this many tokens can run at all, alone."""
        return self.pages_of(tokens) <= self.page_count


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token drawn for a sequence; it is the last if it `stopped` it (a stop id) or `exhausted` max_tokens.

    `routing` sums what each layer's experts ran for it since the token before, where a trace was asked for.
    """

    key: str
    token: SampledToken
    stopped: bool
    exhausted: bool
    routing: tuple[tuple[int, ...], ...] = ()


class Scheduler:
    """Waiting and running sequences, their slots and their pages."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.page_count)
        self._waiting: list[tuple[int, int, Sequence]] = []  # by (-priority, arrival)
        self._running: list[tuple[int, int, Sequence]] = []  # in the same order
        self._arrivals = itertools.count()
        self._free_slots = list(range(limits.max_running - 1, -1, -1))
        self._release: list[int] = []
        self._by_key: dict[str, Sequence] = {}
        self._steps = itertools.count()

    @property
    def running_count(self) -> int:
        """Sequences in slots."""
        return len(self._running)

    @property
    def waiting_count(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether `plan` has anything to run."""
        return bool(self._waiting or self._running)

    def keys(self) -> list[str]:
        """All sequences, by key."""
        return list(self._by_key)

    def running_keys(self) -> list[str]:
        """Sequences in slots, by key."""
        return [entry[2].key for entry in self._running]

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence: higher priority first, then in order of arrival. The caller has asked `Limits.fit`."""
        assert sequence.key not in self._by_key, f"{sequence.key} is here already"
        self._by_key[sequence.key] = sequence
        bisect.insort(self._waiting, (-sequence.priority, next(self._arrivals), sequence))

    def abort(self, key: str) -> bool:
        """Drop a sequence and free what it holds; False if it is not (or no longer) here."""
        sequence = self._by_key.pop(key, None)
        if sequence is None:
            return False
        self._waiting = [entry for entry in self._waiting if entry[2] is not sequence]
        self._running = [entry for entry in self._running if entry[2] is not sequence]
        self._vacate(sequence)
        return True

    def requeue_all(self) -> None:
        """The head lost its cache: everything that ran waits again, with its tokens, in its old order."""
        for entry in self._running:
            self._vacate(entry[2])
            bisect.insort(self._waiting, entry)
        self._running = []
        self._release = []

    def plan(self, epoch: int, incarnation: str) -> StepPlan:
        """The next step; its chunks are empty if nothing can run."""
        budget = self.limits.max_tokens_per_step
        chunks: list[Chunk] = []
        running = [entry[2] for entry in self._running]
        for sequence in running:
            sequence.planned = 0
        for sequence in sorted(running, key=lambda s: s.pending > 1):  # decodes first: prefill must not stall them
            tokens = min(sequence.pending, budget)
            if tokens and sequence.slot >= 0 and self._make_room(sequence, tokens):
                chunks.append(self._chunk(sequence, tokens))
                budget -= tokens
        admitted: list[NewSequence] = []
        complete = all(s.planned for s in running if s.slot >= 0)  # else one waits for pages, which nobody may take
        while complete and budget and self._waiting and self._free_slots:
            sequence = self._waiting[0][2]
            if self.limits.pages_of(sequence.pending) > self.pool.free_count:
                break  # with room for its first chunk only, it would be preempted half-way and begin again and again
            tokens = min(sequence.pending, budget)
            bisect.insort(self._running, self._waiting.pop(0))
            sequence.slot = self._free_slots.pop()
            admitted.append(sequence.admission())
            chunks.append(self._chunk(sequence, tokens))
            budget -= tokens
        if not chunks:
            return StepPlan(-1, epoch, incarnation, (), (), ())
        release, self._release = tuple(self._release), []
        return StepPlan(next(self._steps), epoch, incarnation, release, tuple(admitted), tuple(chunks))

    def commit(self, plan: StepPlan, result: StepResult) -> list[Drawn]:
        """Take a step's result; sequences that ended are gone afterwards."""
        by_slot = {s.slot: s for _, _, s in self._running if s.planned}  # those aborted meanwhile are not here
        for chunk in plan.chunks:
            if sequence := by_slot.get(chunk.slot):
                sequence.computed += chunk.length
                self.pool.give_back(sequence.outdated(self.limits.window, self.limits.page_size))
        for slot, counts in result.traces:
            if sequence := by_slot.get(slot):
                sequence.count_routing(counts)
        return [self._drawn(by_slot[token.slot], token) for token in result.tokens if token.slot in by_slot]

    def _drawn(self, sequence: Sequence, token: SampledToken) -> Drawn:
        sequence.token_ids.append(token.token_id)
        enough = sequence.output_length >= sequence.sampling.min_tokens
        stopped = token.token_id in sequence.stop_ids and enough
        exhausted = not stopped and sequence.output_length >= sequence.max_tokens
        if stopped or exhausted:
            self.abort(sequence.key)
        routing, sequence.routing = sequence.routing, ()
        return Drawn(sequence.key, token, stopped, exhausted, routing)

    def _chunk(self, sequence: Sequence, tokens: int) -> Chunk:
        pages = self.pool.take(sequence.pages_needed(tokens, self.limits.page_size))
        sequence.pages += pages
        sequence.planned = tokens
        return Chunk(sequence.slot, sequence.computed, tokens, tuple(pages), tokens == sequence.pending)

    def _make_room(self, sequence: Sequence, tokens: int) -> bool:
        """Preempt from the back until `sequence` has pages for its chunk; False if it must do without.

        Those behind it that are in this step already keep their pages: then it waits, and they give way in the next.
        """
        while sequence.pages_needed(tokens, self.limits.page_size) > self.pool.free_count:
            victim = next((e for e in reversed(self._running) if not e[2].planned or e[2] is sequence), None)
            assert victim is not None
            if victim[2] is sequence and self._running[-1] is not victim:
                return False
            self._running.remove(victim)
            self._vacate(victim[2])
            bisect.insort(self._waiting, victim)
            if victim[2] is sequence:
                return False
        return True

    def _vacate(self, sequence: Sequence) -> None:
        if sequence.slot >= 0:
            self._release.append(sequence.slot)
            self._free_slots.append(sequence.slot)
        self.pool.give_back(sequence.forget_cache())

    def check(self) -> None:
        """Raise AssertionError unless slots and pages are each held exactly once."""
        self.pool.check()
        running: Iterable[Sequence] = [entry[2] for entry in self._running]
        slots = [s.slot for s in running]
        assert sorted(slots + self._free_slots) == list(range(self.limits.max_running)), "a slot is lost or doubled"
        held = [page for s in running for page in s.held_pages]
        assert len(held) == len(set(held)), "two sequences hold one page"
        assert len(held) + self.pool.free_count == self.limits.page_count, "a page is held by nobody"
        assert all(entry[2].slot < 0 and not entry[2].pages for entry in self._waiting), "a waiting one holds pages"
        assert len(self._by_key) == len(self._running) + len(self._waiting), "a sequence is lost"
