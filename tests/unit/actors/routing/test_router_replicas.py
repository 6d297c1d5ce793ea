"""The router with several replicas of each expert, some of which are dead, frozen or slow. No test waits.

The answers of these transports come in the order of their times, on a clock that only polls and pauses move.
"""

import heapq
import random
from collections.abc import Callable, Collection, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.replica import Replica
from actors.routing.deadlines import Deadlines
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter, ExpertUnavailable
from actors.routing.step_counts import StepCounts
from actors.transport.seam import ExpertCall, ExpertReply
from actors.usage import UsageCounter
from tests.unit.actors.routing.test_router import EXPERTS, Clock, bad, dense, good, some_dispatch, table

NEVER = None
Behaviour = Callable[[ExpertCall, float], tuple[float | None, bool]]  # call, now -> seconds until the end, whether well


class Timed:
    """A transport whose calls end as `behave` says."""

    def __init__(self, behave: Behaviour, clock: Clock) -> None:
        self.behave, self.clock = behave, clock
        self.sent: list[ExpertCall] = []
        self._ends: list[tuple[float, int, ExpertReply]] = []
        self._waited_for: set[int] = set()

    def connect(self, replica: Replica) -> Replica:
        return replica

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        for call in calls:
            self.sent.append(call)
            self._waited_for.add(call.call_id)
            seconds, well = self.behave(call, self.clock.now)
            if seconds is not None:
                reply = good(call) if well else bad(call)
                heapq.heappush(self._ends, (self.clock.now + seconds, call.call_id, reply))

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        end, replies = self.clock.now + timeout, list[ExpertReply]()
        while self._waited_for.intersection(call_ids) and self._ends and self._ends[0][0] <= end:
            at, call_id, reply = heapq.heappop(self._ends)
            self.clock.now = max(self.clock.now, at)
            replies.append(reply)
            waited_for = call_id in call_ids
            self._waited_for.discard(call_id)
            if waited_for and (first or reply.rows_RD is None):
                return replies
        if self._waited_for.intersection(call_ids):
            self.clock.now = end
        return replies

    def close(self) -> None:
        """Nothing is held."""

    def abandon(self, call_ids: Collection[int]) -> None:
        self._waited_for -= set(call_ids)


class Rig:
    """A router on such a transport, whose deadlines have seen that calls take 10 ms, or 15 at the most."""

    def __init__(self, behave: Behaviour, slots: int = 2, grace: float = 60.0) -> None:
        self.clock = Clock()
        self.transport = Timed(behave, self.clock)
        self.replicas = Replicas(table(slots), random.Random(9), self.clock)
        self.deadlines = Deadlines()
        self.usage = UsageCounter(EXPERTS)
        rng = random.Random(4)
        for _ in range(200):
            self.deadlines.observe(rng.randint(4, 6), 0.01 * (1 + rng.random() / 2))
        self.router = ExpertRouter(
            self.transport, self.replicas, self.usage, grace, self.deadlines, self.clock, self.clock.pause
        )
        self.counts = StepCounts()

    def layer(self, seed: int = 1) -> float:
        """Run one, hold its sum against the dense one; seconds it took."""
        dispatch, started = some_dispatch(seed=seed), self.clock.now
        total = self.router.combine(self.router.dispatch(dispatch), self.counts)
        assert torch.equal(total, dense(dispatch))
        return self.clock.now - started


def test_rows_go_to_all_replicas() -> None:
    rig = Rig(lambda call, now: (0.01, True), slots=3)
    for seed in range(40):
        rig.layer(seed)
    assert {call.replica for call in rig.transport.sent} == {r for row in table(3) for r in row}
    calls = sum(len(some_dispatch(seed=seed).experts_TK.unique()) for seed in range(40))
    assert rig.counts.retries == 0 and len(rig.transport.sent) == calls
    rig.replicas.check()


def test_a_dead_replica_costs_no_pause_and_is_not_asked_again_soon() -> None:
    rig = Rig(lambda call, now: (0.001, False) if call.replica.index == 0 else (0.01, True))
    took = [rig.layer(seed) for seed in range(20)]
    assert max(took) < 0.05 and rig.clock.pauses == []
    assert 0 < rig.counts.retries <= EXPERTS, "each was found dead once"
    assert sum(rig.usage.retries) == rig.counts.retries
    rig.replicas.check()


def test_a_frozen_replica_is_found_by_the_deadline_and_trusted_when_it_answers() -> None:
    thaw = [float("inf")]

    def behave(call: ExpertCall, now: float) -> tuple[float | None, bool]:
        if call.replica != Replica(3, 0):
            return 0.01, True
        return (max(0.01, thaw[0] - now) if thaw[0] < float("inf") else 5.0), True

    rig = Rig(behave)
    rig.router._hedges = -100.0  # none
    took = [rig.layer(seed) for seed in range(12)]
    assert sum(t > 0.2 for t in took) == 1, "the first to ask it waits, nobody after"
    assert max(took) < 0.3 and rig.counts.retries == 1
    assert rig.replicas.doubted() == {(3, 0)}
    thaw[0] = 0.0
    rig.clock.now += 6.0
    rig.layer(99)
    assert not rig.replicas.doubted()
    rig.layer(100)
    rig.replicas.check()


def test_a_slow_call_is_hedged_and_the_first_answer_wins() -> None:
    rig = Rig(lambda call, now: (0.2 if call.replica == Replica(3, 0) else 0.01, True))
    took = [rig.layer(seed) for seed in range(10)]
    assert max(took) < 0.05 and rig.counts.retries == 0
    assert sum(rig.usage.hedges) == rig.usage.hedges[3] > 0
    assert {call.replica.expert for call in rig.transport.sent[-1:]} <= set(range(EXPERTS))


def test_one_that_lost_to_a_hedge_and_never_answers_is_doubted() -> None:
    rig = Rig(lambda call, now: (NEVER if call.replica == Replica(3, 0) else 0.01, True))
    for seed in range(60):
        rig.layer(seed)
    assert rig.usage.hedges[3] == 1 and rig.counts.retries == 0
    assert rig.replicas.doubted() == {(3, 0)}


def test_hedges_are_bounded_by_a_share_of_the_calls() -> None:
    rig = Rig(lambda call, now: (0.1, True))
    for seed in range(100):
        rig.layer(seed)
    first_calls = 100 * EXPERTS
    assert sum(rig.usage.hedges) <= 4 + 0.02 * first_calls


def test_with_one_replica_nothing_is_hedged_and_a_late_answer_is_waited_for() -> None:
    rig = Rig(lambda call, now: (3.0 if call.replica.expert == 2 else 0.01, True), slots=1)
    assert rig.layer() == pytest.approx(3.0, abs=0.01)
    assert (rig.counts.retries, sum(rig.usage.hedges)) == (0, 0) and len(rig.transport.sent) == EXPERTS


def test_a_sole_copy_that_died_is_asked_until_its_replacement_answers() -> None:
    started: list[float] = []

    def behave(call: ExpertCall, now: float) -> tuple[float | None, bool]:
        started.append(now)
        return (0.001, False) if call.replica.expert == 5 and now < started[0] + 2.0 else (0.01, True)

    rig = Rig(behave, slots=1)
    assert 2.0 <= rig.layer() < 2.2
    assert rig.counts.retries > 10
    rig.replicas.check()


def test_an_expert_without_a_replica_waits_for_a_table_that_has_one() -> None:
    rig = Rig(lambda call, now: (0.01, True), slots=1)
    whole = rig.replicas.table
    rig.replicas.table = (*whole[:6], (), whole[7])
    swapped = rig.clock.now + 1.0
    pause = rig.clock.pause

    def pausing(seconds: float) -> None:
        pause(seconds)
        if rig.clock.now >= swapped:
            rig.replicas.table = whole

    rig.router._pause = pausing
    assert 1.0 <= rig.layer() < 1.2


def test_a_lost_sole_copy_that_hangs_is_replaced_by_another_slot_of_a_new_table() -> None:
    rig = Rig(lambda call, now: (NEVER if call.replica == Replica(6, 0) else 0.01, True), slots=1)
    whole = rig.replicas.table

    def behave(call: ExpertCall, now: float) -> tuple[float | None, bool]:
        if call.replica == Replica(6, 0):
            rig.replicas.table = (*whole[:6], (Replica(6, 1),), whole[7])
            return NEVER, True
        return 0.01, True

    rig.transport.behave = behave
    assert rig.layer() < 0.4
    assert rig.counts.retries + sum(rig.usage.hedges) == 1


def test_nobody_answers_within_the_grace() -> None:
    rig = Rig(lambda call, now: (NEVER if call.replica.expert == 1 else 0.01, True), grace=2.0)
    with pytest.raises(ExpertUnavailable, match=r"experts \[1\] within 2 s"):
        rig.layer()
    rig.transport.behave = lambda call, now: (0.01, True)
    assert rig.layer(2) < 0.1


def test_a_large_call_is_split_over_its_replicas() -> None:
    rig = Rig(lambda call, now: (0.001 + 0.01 * len(call.rows_RD), True), slots=3)
    for _ in range(100):
        for rows in (1, 10, 100):
            rig.deadlines.observe(rows, 0.001 + 0.01 * rows)
    rig.layer()
    for expert, rows in enumerate(some_dispatch(seed=1).experts_TK.flatten().bincount(minlength=EXPERTS).tolist()):
        sent = [call for call in rig.transport.sent if call.replica.expert == expert]
        assert len({call.replica for call in sent}) == len(sent) == min(rows, 3)
        assert sum(len(call.rows_RD) for call in sent) == rows
        assert all(len(call.rows_RD) for call in sent), "a part without rows is none"


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(0, 2**32), st.integers(2, 4))
def test_whatever_happens_to_replicas_each_layer_has_one_answer_a_part(seed: int, slots: int) -> None:
    """Every replica but each expert's last dies, freezes, is slow or fails at random."""
    rng = random.Random(seed)

    def behave(call: ExpertCall, now: float) -> tuple[float | None, bool]:
        if call.replica.index == slots - 1:
            return 0.01, True
        return rng.choice([(0.01, True), (0.005, False), (5.0, True), (0.3, True), (3.0, False), (NEVER, True)])

    rig = Rig(behave, slots)
    for layer in range(10):
        assert rig.layer(layer) < 2.0
    under_way = sum(rig.replicas.queued().values())
    assert under_way == sum(stray.rows for stray in rig.router._strays.values())
