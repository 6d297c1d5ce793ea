"""Decides what each step runs: a data structure, not a process. Pure.

`plan()` gives the next StepPlan, `commit()` takes its result. Sequences join and leave at every step; prefill and
decode share a token budget, and long prompts are cut into chunks. When pages run out, the sequence that came last
is preempted: it gives its pages back and is run again from its tokens later, to the same effect.
"""

import bisect
import itertools
from collections import Counter

from cluster.policy.scheduling.blocks import BlockPool
from cluster.policy.scheduling.fair_queue import FairQueue, gives_way
from cluster.policy.scheduling.limits import Limits
from cluster.policy.scheduling.prefix import extend_keys
from cluster.policy.scheduling.prefix_hit import Entry, find_entry, siblings
from cluster.policy.scheduling.sequence import Drawn, Sequence
from model.batch import Chunk, NewSequence, SampledToken, SequenceFault, StepPlan, StepResult

_MOST_LOSSES = 5  # of heads in a row


class Scheduler:
    """Waiting and running sequences, their slots and their pages."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.page_count)
        self.queue = FairQueue()
        self._running: list[Sequence] = []  # by rank
        self._arrivals = itertools.count()
        self._free_slots = list(range(limits.max_running - 1, -1, -1))
        self._release: list[int] = []
        self._by_key: dict[str, Sequence] = {}
        self._steps = itertools.count()
        self._batch_open = True  # static batching: sequences may enter
        self._interrupted: set[Sequence] = set()  # those that ran when a cache was lost, until their next token

    @property
    def running_count(self) -> int:
        """Sequences in slots."""
        return len(self._running)

    @property
    def waiting_count(self) -> int:
        """Sequences without a slot."""
        return len(self.queue)

    @property
    def has_work(self) -> bool:
        """Whether `plan` has anything to run."""
        return bool(self._by_key)

    @property
    def recovering(self) -> bool:
        """Whether there are sequences that ran when a head's cache was lost and are not back yet."""
        return bool(self._interrupted)

    def sequences(self) -> list[Sequence]:
        """All of them, in order of arrival."""
        return list(self._by_key.values())

    def running(self) -> list[Sequence]:
        """Those in slots."""
        return list(self._running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. The caller has asked `Limits.fit`."""
        assert sequence.key not in self._by_key, f"{sequence.key} is here already"
        self._by_key[sequence.key] = sequence
        sequence.arrival = next(self._arrivals)
        self.queue.arrive(sequence)

    def abort(self, key: str) -> bool:
        """Drop a sequence and free what it holds; False if it is not (or no longer) here."""
        sequence = self._by_key.pop(key, None)
        if sequence is None:
            return False
        self._interrupted.discard(sequence)
        if sequence.slot < 0:
            self.queue.drop(sequence)
        else:
            self._vacate(sequence)
        self.queue.leave(sequence)
        return True

    def requeue_all(self) -> None:
        """The head lost its cache: everything that ran waits again, with its tokens, in its old order."""
        self._interrupted.update(self._running)
        while self._running:
            self._preempt(self._running[-1])
        self._release = []
        self.pool.forget_contents()

    def head_lost(self) -> list[Sequence]:
        """The head ended in a step. Answers those in whose steps it did so too often in a row, which are dropped: one
        of them may be why, and the others shall not wait for ever.
        """
        for sequence in self._running:
            sequence.losses += sequence.planned > 0
        given_up = [sequence for sequence in self._running if sequence.losses >= _MOST_LOSSES]
        for sequence in given_up:
            self.abort(sequence.key)
        return given_up

    def resize(self, limits: Limits) -> list[Sequence]:
        """The head has another cache from now on; nothing runs. Answers those that can never fit, which are dropped."""
        assert not self._running, "requeue_all comes first"
        if limits == self.limits:
            return []
        self.limits, self.pool = limits, BlockPool(limits.page_count)
        unfit = [s for s in self.sequences() if not limits.fit(s.prompt_length + s.max_tokens)]
        for sequence in unfit:
            self.abort(sequence.key)
        for sequence in self.sequences():
            sequence.page_keys = []
        return unfit

    def plan(self, epoch: int, incarnation: str, prefill_tokens: int | None = None) -> StepPlan:
        """The next step; its chunks are empty if nothing can run.

        Beside sequences that decode, at most `prefill_tokens` of the others are run.
        """
        budget = self.limits.max_tokens_per_step
        chunks: list[Chunk] = []
        self._give_way()
        for sequence in self._running:
            sequence.planned = 0
        decoding = [s for s in self._running if s.pending == 1]
        for sequence in decoding:  # first: prefill must not stall them
            if budget and sequence.slot >= 0 and self._make_room(sequence, 1):
                chunks.append(self._chunk(sequence, 1))
                budget -= 1
        if chunks and prefill_tokens is not None:
            budget = min(budget, prefill_tokens)
        for sequence in [s for s in self._running if s.pending > 1]:
            tokens = min(sequence.pending, budget)
            if tokens and sequence.slot >= 0 and self._make_room(sequence, tokens):
                chunks.append(self._chunk(sequence, tokens))
                budget -= tokens
        admitted: list[NewSequence] = []
        copies: list[tuple[int, int]] = []
        if all(s.planned for s in self._running):  # else one waits for pages or budget, which nobody may take
            self._admit(budget, admitted, chunks, copies)
        if not chunks:
            return StepPlan(-1, epoch, incarnation, (), (), ())
        release, self._release = tuple(self._release), []
        return StepPlan(next(self._steps), epoch, incarnation, release, tuple(admitted), tuple(chunks), tuple(copies))

    def _admit(
        self, budget: int, admitted: list[NewSequence], chunks: list[Chunk], copies: list[tuple[int, int]]
    ) -> None:
        """Let the queue's first ones in while budget, slots and pages last."""
        self._batch_open |= not self._running
        if self.limits.static_batching and not self._batch_open:
            return
        while budget and self._free_slots:
            sequence = self.queue.first(self._holding())
            if sequence is None:
                break
            if any(s.computed < s.prompt_length - 1 for s in siblings(sequence, self._running)):
                return  # it will share what its sibling is about to compute
            entry = find_entry(sequence, self._running, self.pool, self.limits)
            if not self._has_pages(sequence, entry):
                break  # with room for its first chunk only, it would be preempted half-way and begin again and again
            self._enter(sequence, entry, copies)
            admitted.append(sequence.admission())
            tokens = min(sequence.pending, budget)
            chunks.append(self._chunk(sequence, tokens, pages_known=0))
            budget -= tokens
        self._batch_open = not budget  # it stays open only for those that the token budget kept out

    def _holding(self) -> Counter[str]:
        """How many slots each client has."""
        return Counter(s.client for s in self._running)

    def _has_pages(self, sequence: Sequence, entry: Entry) -> bool:
        held_by_others = len(entry.shared) - entry.new_pages(self.pool)
        return self.limits.pages_of(len(sequence.token_ids)) - held_by_others <= self.pool.free_count

    def _give_way(self) -> None:
        """Preempt others until a client that waits and has no slot can have one."""
        while not self.limits.static_batching and (first := self.queue.first(holding := self._holding())):
            if first.client in holding or not (victim := gives_way(first, self._running, holding)):
                return
            if self._free_slots and self._has_pages(first, find_entry(first, self._running, self.pool, self.limits)):
                return
            self._preempt(victim)

    def _enter(self, sequence: Sequence, entry: Entry, copies: list[tuple[int, int]]) -> None:
        if sequence.cached is None:
            sequence.cached = entry.position
        self.queue.enter(sequence, sequence.pending - entry.position)
        self.pool.share(entry.shared)
        sequence.pages = [0] * entry.dropped + list(entry.shared)  # nobody looks at the first ones
        sequence.dropped, sequence.computed = entry.dropped, entry.position
        if entry.copied is not None:
            (page,) = self.pool.take(1)
            copies.append((entry.copied, page))
            sequence.pages.append(page)
        sequence.slot = self._free_slots.pop()
        bisect.insort(self._running, sequence, key=lambda s: s.rank)

    def drop_faulty(self, result: StepResult) -> list[tuple[Sequence, SequenceFault]]:
        """Sequences that cannot go on, as the head found, and why; they are gone afterwards. Before `commit`, so that
        none of what this step wrote for them can be found by others; what they wrote before is forgotten.
        """
        by_slot = {s.slot: s for s in self._running if s.planned}
        found = [(by_slot[fault.slot], fault) for fault in result.faults if fault.slot in by_slot]
        for sequence, fault in found:
            if fault.kind == "numeric":
                self.pool.forget(sequence.held_pages)
            self.abort(sequence.key)
        return found

    def commit(self, plan: StepPlan, result: StepResult) -> list[Drawn]:
        """Take a step's result; sequences that ended are gone afterwards."""
        by_slot = {s.slot: s for s in self._running if s.planned}  # those aborted meanwhile are not here
        for chunk in plan.chunks:
            if sequence := by_slot.get(chunk.slot):
                self._advance(sequence, chunk.length)
        for slot, counts in result.traces:
            if sequence := by_slot.get(slot):
                sequence.count_routing(counts)
        for prompt in result.prompts:
            if sequence := by_slot.get(prompt.slot):
                sequence.score(prompt.start, prompt.tokens)
        return [self._drawn(by_slot[token.slot], token) for token in result.tokens if token.slot in by_slot]

    def _advance(self, sequence: Sequence, tokens: int) -> None:
        size, before = self.limits.page_size, sequence.computed
        sequence.computed += tokens
        if self.limits.prefix_caching:
            full = sequence.computed // size
            extend_keys(sequence.page_keys, sequence.token_ids, size, full, sequence.tenant)
            for page in range(before // size, full):
                self.pool.publish(sequence.pages[page], sequence.page_keys[page])
        self.pool.give_back(sequence.outdated(self.limits.window, size))

    def _drawn(self, sequence: Sequence, token: SampledToken) -> Drawn:
        sequence.token_ids.append(token.token_id)
        sequence.losses = 0
        self._interrupted.discard(sequence)
        self.queue.drawn(sequence)
        enough = sequence.output_length >= sequence.sampling.min_tokens
        stopped = token.token_id in sequence.stop_ids and enough
        exhausted = not stopped and sequence.output_length >= sequence.max_tokens
        if stopped or exhausted:
            self.abort(sequence.key)
        routing, sequence.routing = sequence.routing, ()
        return Drawn(sequence, token, stopped, exhausted, routing)

    def _chunk(self, sequence: Sequence, tokens: int, pages_known: int | None = None) -> Chunk:
        known = len(sequence.pages) if pages_known is None else pages_known
        sequence.pages += self.pool.take(sequence.pages_needed(tokens, self.limits.page_size))
        sequence.planned = tokens
        new_pages = tuple(sequence.pages[known:])
        return Chunk(sequence.slot, sequence.computed, tokens, new_pages, tokens == sequence.pending)

    def _make_room(self, sequence: Sequence, tokens: int) -> bool:
        """Preempt from the back until `sequence` has pages for its chunk; False if it must do without.

        Those behind it that are in this step already keep their pages: then it waits, and they give way in the next.
        """
        while sequence.pages_needed(tokens, self.limits.page_size) > self.pool.free_count:
            victim = next((s for s in reversed(self._running) if not s.planned or s is sequence), None)
            assert victim is not None
            if victim is sequence and self._running[-1] is not victim:
                return False
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._vacate(sequence)
        self.queue.resume(sequence)

    def _vacate(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._release.append(sequence.slot)
        self._free_slots.append(sequence.slot)
        self.pool.give_back(sequence.forget_cache())

    def check(self) -> None:
        """Raise AssertionError unless slots and pages are held by whom they should be."""
        self.pool.check()
        self.queue.check()
        slots = [s.slot for s in self._running]
        assert sorted(slots + self._free_slots) == list(range(self.limits.max_running)), "a slot is lost or doubled"
        held: dict[int, int] = {}
        for page in (page for s in self._running for page in s.held_pages):
            held[page] = held.get(page, 0) + 1
        assert all(self.pool.holders(page) == count for page, count in held.items()), "holders are miscounted"
        assert len(held) + self.pool.free_count == self.limits.page_count, "a page is held by nobody"
        assert len(self._by_key) == len(self._running) + len(self.queue), "a sequence is lost"
        assert self._interrupted <= set(self._by_key.values()), "one that is gone would be waited for"
