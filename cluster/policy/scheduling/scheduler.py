"""Decides what each step runs: `plan()` gives the next StepPlan, `commit()` takes its result. Sequences join and leave
at every step; prefill and decode share a token budget, and long prompts are cut into chunks. When pages run out, the
last sequence is preempted: it gives its pages back and is run again from its tokens later, to the same effect.
"""

import bisect
import itertools
from collections import Counter

from cluster.policy.scheduling.ahead import chunks_ahead
from cluster.policy.scheduling.blocks import BlockPool
from cluster.policy.scheduling.fair_queue import FairQueue, gives_way
from cluster.policy.scheduling.limits import Backlog, Limits
from cluster.policy.scheduling.plan_draft import PlanDraft
from cluster.policy.scheduling.prefix import PrefixHit, extend_keys, find_prefix_hit, siblings
from cluster.policy.scheduling.sequence import NextToken, Sequence, added
from model.batch import Chunk, SampledToken, SequenceFault, StepPlan, StepResult

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
        self._by_id: dict[str, Sequence] = {}
        self._steps = itertools.count()
        self.interrupted: set[Sequence] = set()  # they ran when a cache was lost, and have no token yet

    @property
    def decode_count(self) -> int:
        """Sequences in slots that have one token to run."""
        return sum(s.pending == 1 for s in self._running)

    @property
    def newcomer_count(self) -> int:
        """Sequences that prefill would help: those in slots amid their tokens, and as many of the queue as there are
        free slots for.
        """
        return len(self._running) - self.decode_count + min(len(self.queue), len(self._free_slots))

    def backlog(self, client: str) -> Backlog:
        free_slots = self.limits.max_running - len(self._running)
        return Backlog(len(self.queue), self.queue.tokens, self.queue.waiting_of(client), free_slots)

    @property
    def has_work(self) -> bool:
        return bool(self._by_id)

    def sequences(self) -> list[Sequence]:
        """In order of arrival."""
        return list(self._by_id.values())

    def running(self) -> list[Sequence]:
        """Sequences in slots, by rank."""
        return list(self._running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. The caller has asked `Limits.fit`."""
        assert sequence.id not in self._by_id, f"{sequence.id} is here already"
        self._by_id[sequence.id] = sequence
        sequence.arrival = next(self._arrivals)
        self.queue.arrive(sequence)

    def abort(self, sequence_id: str) -> bool:
        """Drop a sequence and free what it holds; False if it is not (or no longer) here."""
        sequence = self._by_id.pop(sequence_id, None)
        if sequence is None:
            return False
        self.interrupted.discard(sequence)
        if sequence.slot < 0:
            self.queue.drop(sequence)
        else:
            self._vacate(sequence)
        self.queue.leave(sequence)
        return True

    def requeue_all(self) -> None:
        """The head lost its cache: everything that ran waits again, with its tokens, in its old order."""
        self.interrupted.update(self._running)
        while self._running:
            self._preempt(self._running[-1])
        self._release = []
        self.pool.forget_contents()

    def head_lost(self) -> list[Sequence]:
        """The head ended in a step. Returns, and drops, the sequences in whose steps a head has ended five times since
        their last token: one of them may be the cause, and the others shall not wait for ever.
        """
        for sequence in self._running:
            sequence.losses += sequence.planned > 0
        return self.drop([sequence for sequence in self._running if sequence.losses >= _MOST_LOSSES])

    def drop(self, sequences: list[Sequence]) -> list[Sequence]:
        """Abort these, which it returns."""
        for sequence in sequences:
            self.abort(sequence.id)
        return sequences

    def resize(self, limits: Limits) -> list[Sequence]:
        """The head has another cache from now on; nothing runs. Returns, and drops, what can never fit."""
        assert not self._running, "requeue_all comes first"
        if limits == self.limits:
            return []
        self.limits, self.pool = limits, BlockPool(limits.page_count)
        for sequence in self.sequences():
            sequence.page_keys = []
        return self.drop([s for s in self.sequences() if not limits.fit(s.prompt_length + s.request.max_tokens)])

    def plan(self, epoch: int, incarnation: str, prefill_tokens: int | None = None) -> StepPlan | None:
        """The next step, None if there is nothing to run. Decodes share it with at most `prefill_tokens` of prompts."""
        draft = PlanDraft(self.limits.max_tokens_per_step)
        self._give_way()
        for sequence in self._running:
            sequence.planned = sequence.ahead = 0
        self._continue(draft, [s for s in self._running if s.pending == 1])  # first: prefill must not stall decodes
        draft.bound_prefill(prefill_tokens)
        self._continue(draft, [s for s in self._running if s.pending > 1])
        if all(s.planned for s in self._running):  # else one waits for budget or pages, which no newcomer may take
            self._admit(draft)
        if not draft.chunks:
            return None
        release, self._release = self._release, []
        return draft.plan(next(self._steps), epoch, incarnation, release)

    def plan_ahead(self, last: StepPlan) -> StepPlan | None:
        """The step behind `last`, which is under way, if nobody waits and all that go on decode; None if not."""
        if len(self.queue) or self.interrupted:
            return None
        chunks = chunks_ahead(self._running, self.pool, self.limits.page_size)
        if not chunks:
            return None
        release, self._release = tuple(self._release), []
        return StepPlan(next(self._steps), last.epoch, last.incarnation, release, (), tuple(chunks))

    def _continue(self, draft: PlanDraft, sequences: list[Sequence]) -> None:
        """Run the next tokens of sequences in slots, as many as the budget and the pages allow."""
        for sequence in sequences:
            tokens = min(sequence.pending, draft.budget)
            preempted = sequence.slot < 0  # one before it in `sequences` needed its pages
            if tokens and not preempted and self._make_room(sequence, tokens):
                draft.run(self._chunk(sequence, tokens, len(sequence.pages)))

    def _admit(self, draft: PlanDraft) -> None:
        """Let the queue's first sequences in while budget, slots and pages last."""
        while draft.budget and self._free_slots and (sequence := self.queue.first(self._slots_by_client())):
            if any(s.computed < s.prompt_length - 1 for s in siblings(sequence, self._running)):
                return  # it will share what its sibling is about to compute
            if (hit := self._fitting_hit(sequence)) is None:
                return  # admit only what fits whole: else it is preempted amid its prefill and starts over, endlessly
            self._enter(sequence, hit, draft)
            draft.admitted.append(sequence.admission())
            draft.run(self._chunk(sequence, min(sequence.pending, draft.budget), 0))

    def _slots_by_client(self) -> Counter[str]:
        return Counter(s.request.client for s in self._running)

    def _fitting_hit(self, sequence: Sequence) -> PrefixHit | None:
        """Where the sequence can begin; None if there are not pages enough for all of it."""
        hit = find_prefix_hit(sequence, self._running, self.pool, self.limits)
        held_by_others = sum(self.pool.holders(page) > 0 for page in hit.shared)
        return hit if self.limits.pages_of(len(sequence.token_ids)) - held_by_others <= self.pool.free_count else None

    def _give_way(self) -> None:
        """Preempt others until a client that waits and has no slot can have one."""
        while first := self.queue.first(slots := self._slots_by_client()):
            if first.request.client in slots or not (victim := gives_way(first, self._running, slots)):
                return
            if self._free_slots and self._fitting_hit(first):
                return
            self._preempt(victim)

    def _enter(self, sequence: Sequence, hit: PrefixHit, draft: PlanDraft) -> None:
        if sequence.cached is None:
            sequence.cached = hit.position
        self.queue.enter(sequence, sequence.pending - hit.position)
        self.pool.share(hit.shared)
        sequence.pages = [0] * hit.dropped + list(hit.shared)  # the first ones are never looked at
        sequence.dropped, sequence.computed = hit.dropped, hit.position
        if hit.copied is not None:
            (page,) = self.pool.take(1)
            draft.copies.append((hit.copied, page))
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
            self.abort(sequence.id)
        return found

    def commit(self, plan: StepPlan, result: StepResult) -> list[NextToken]:
        """Take a step's result; sequences that ended are gone afterwards."""
        by_slot = {s.slot: s for s in self._running if s.planned}  # without what was aborted meanwhile
        for chunk in plan.chunks:
            if sequence := by_slot.get(chunk.slot):
                self._advance(sequence, chunk.length)
        for slot, counts in result.routing:
            if sequence := by_slot.get(slot):
                sequence.routing = added(sequence.routing, counts)  # a long prompt's first token takes several steps
        for prompt in result.prompts:
            if sequence := by_slot.get(prompt.slot):
                sequence.score(prompt.start, prompt.tokens)
        sampled = [self._sampled(by_slot[token.slot], token) for token in result.tokens if token.slot in by_slot]
        for sequence in self._running:
            sequence.planned, sequence.ahead = sequence.ahead, 0
        return sampled

    def _advance(self, sequence: Sequence, tokens: int) -> None:
        size, before = self.limits.page_size, sequence.computed
        sequence.computed += tokens
        if self.limits.prefix_caching:
            full = sequence.computed // size
            extend_keys(sequence.page_keys, sequence.token_ids, size, full, sequence.request.tenant)
            for page in range(before // size, full):
                self.pool.publish(sequence.pages[page], sequence.page_keys[page])
        self.pool.give_back(sequence.outdated(self.limits.window, size))

    def _sampled(self, sequence: Sequence, token: SampledToken) -> NextToken:
        self.interrupted.discard(sequence)
        self.queue.sampled(sequence)
        sampled = sequence.append(token)
        if sampled.stopped or sampled.exhausted:
            self.abort(sequence.id)
        return sampled

    def _chunk(self, sequence: Sequence, tokens: int, known: int) -> Chunk:
        """The next tokens of a sequence, and its pages but the first ones, which are `known` to the head."""
        sequence.pages += self.pool.take(sequence.pages_needed(tokens, self.limits.page_size))
        sequence.planned = tokens
        new_pages = tuple(sequence.pages[known:])
        return Chunk(sequence.slot, sequence.computed, tokens, new_pages, tokens == sequence.pending)

    def _make_room(self, sequence: Sequence, tokens: int) -> bool:
        """Preempt from the back until `sequence` has pages for its chunk; False if it must do without. Sequences behind
        it that are in this step already keep their pages, and give way in the next.
        """
        while sequence.pages_needed(tokens, self.limits.page_size) > self.pool.free_count:
            victim = next(s for s in reversed(self._running) if not s.planned or s is sequence)
            if victim is not sequence or self._running[-1] is sequence:
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
        """Raise AssertionError unless every slot and page is free or held, as its holders say."""
        self.pool.check()
        self.queue.check()
        slots = [s.slot for s in self._running]
        assert sorted(slots + self._free_slots) == list(range(self.limits.max_running)), "a slot is lost or doubled"
        held = Counter(page for s in self._running for page in s.held_pages)
        assert all(self.pool.holders(page) == count for page, count in held.items()), "holders are miscounted"
        assert len(held) + self.pool.free_count == self.limits.page_count, "a page is held by nobody"
        assert len(self._by_id) == len(self._running) + len(self.queue), "a sequence is lost"
        assert self.interrupted <= set(self._by_id.values()), "one that is gone would be waited for"
