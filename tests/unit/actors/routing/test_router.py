"""The expert router over transports that answer late, twice, out of order, with errors, or never. No test waits."""

import math
import random
from collections.abc import Callable, Collection, Generator, Iterable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.replica import Replica, Table, one_each
from actors.routing.deadlines import Deadlines
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter, ExpertUnavailable
from actors.routing.step_counts import StepCounts
from actors.transport.local import LocalTransport
from actors.transport.seam import ExpertCall, ExpertReply
from actors.usage import UsageCounter
from model.routing import Dispatch, route

EXPERTS, HIDDEN, GRACE = 8, 6, 60.0


class Scaling:
    """An expert whose rows can be computed by hand, exactly: each is scaled by its id, plus the layer."""

    def __init__(self, expert: int) -> None:
        self.expert = expert

    def apply(self, layer: int, rows_RD: torch.Tensor) -> torch.Tensor:
        return rows_RD * (self.expert - 2.5) + layer


class Clock:
    """Time that passes when told to, and a pause that only notes how long."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


Script = Callable[[list[ExpertCall]], Iterable[ExpertReply | ExpertCall]]


class Scripted:
    """A transport whose answers a test writes: `script` is given the calls sent since the last poll and returns
    replies, or calls to answer. Where it has none the poll takes its whole timeout.
    """

    def __init__(self, script: Script, clock: Clock) -> None:
        self.script, self.clock = script, clock
        self.sent: list[ExpertCall] = []
        self.abandoned: list[int] = []
        self._new: list[ExpertCall] = []

    def connect(self, replica: Replica) -> Replica:
        return replica

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        self.sent += calls
        self._new += calls

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        assert timeout >= 0
        calls, self._new = self._new, []
        replies = [r if isinstance(r, ExpertReply) else good(r) for r in self.script(calls)]
        if not replies:
            self.clock.now += timeout
        return replies

    def close(self) -> None:
        """Nothing is held."""

    def abandon(self, call_ids: Collection[int]) -> None:
        self.abandoned += call_ids


def good(call: ExpertCall) -> ExpertReply:
    return ExpertReply(call.call_id, Scaling(call.replica.expert).apply(call.layer, call.rows_RD), service_seconds=0.5)


def bad(call: ExpertCall) -> ExpertReply:
    return ExpertReply(call.call_id, None, error=f"expert {call.replica.expert} fell over")


def table(slots: int = 1) -> Table:
    """So many replicas of each expert."""
    return tuple(tuple(Replica(expert, slot) for slot in range(slots)) for expert in range(EXPERTS))


def some_dispatch(tokens: int = 20, layer: int = 0, seed: int = 1, k: int = 2) -> Dispatch:
    source = torch.Generator().manual_seed(seed)
    experts_TK, weights_TK = route(torch.randn(tokens, EXPERTS, generator=source), k)
    return Dispatch(layer, torch.randn(tokens, HIDDEN, generator=source), experts_TK, weights_TK)


def dense(dispatch: Dispatch) -> torch.Tensor:
    """Token by token, its experts in ascending order."""
    out = torch.zeros_like(dispatch.x_TD)
    for t, (experts, weights) in enumerate(zip(dispatch.experts_TK.tolist(), dispatch.weights_TK, strict=True)):
        for expert, weight in zip(experts, weights, strict=True):
            out[t] += Scaling(expert).apply(dispatch.layer, dispatch.x_TD[t]) * weight
    return out


def trunk(*dispatches: Dispatch) -> Generator[Dispatch, torch.Tensor, torch.Tensor]:
    """A trunk that asks for these and returns the sum of the answers."""
    total = torch.zeros(HIDDEN)
    for dispatch in dispatches:
        total = total + (yield dispatch).sum(0)
    return total


class NeverLate(Deadlines):
    """Waits for a call until the grace ends."""

    def deadline(self, rows: int) -> float:
        return math.inf


def router_of(script: Script, clock: Clock, slots: int = 1, deadlines: Deadlines | None = None) -> ExpertRouter:
    replicas = Replicas(table(slots), random.Random(5), clock)
    return ExpertRouter(
        Scripted(script, clock), replicas, UsageCounter(EXPERTS), GRACE, deadlines or NeverLate(), clock, clock.pause
    )


def sent_by(router: ExpertRouter) -> Scripted:
    transport = router._transport
    assert isinstance(transport, Scripted)
    return transport


def routed(script: Script, dispatch: Dispatch | None = None) -> tuple[torch.Tensor, StepCounts, Scripted, Clock]:
    clock, counts = Clock(), StepCounts()
    router = router_of(script, clock)
    total = router.combine(router.dispatch(dispatch or some_dispatch()), counts)
    router.replicas.check()
    return total, counts, sent_by(router), clock


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 30), st.integers(1, EXPERTS), st.integers(0, 3), st.integers(0, 10**6))
def test_dispatch_and_combine_equal_a_dense_loop(tokens: int, k: int, layer: int, seed: int) -> None:
    dispatch = some_dispatch(tokens, layer, seed, k)
    router = ExpertRouter(LocalTransport(), Replicas(one_each([Scaling(e) for e in range(EXPERTS)])))
    assert torch.equal(router.combine(router.dispatch(dispatch), StepCounts()), dense(dispatch))


def test_each_active_expert_gets_one_call_with_all_its_rows() -> None:
    dispatch = some_dispatch(tokens=5, layer=3)
    _, _, transport, _ = routed(lambda calls: calls, dispatch)
    active = sorted(set(dispatch.experts_TK.flatten().tolist()))
    assert [call.replica.expert for call in transport.sent] == active
    for call in transport.sent:
        rows = dispatch.x_TD[(dispatch.experts_TK == call.replica.expert).any(-1)]
        assert torch.equal(call.rows_RD, rows) and call.rows_RD.is_contiguous() and call.layer == 3


def test_order_of_the_answers_changes_no_bit() -> None:
    """Sums of three terms in fp32 would show it."""
    dispatch, rng = some_dispatch(tokens=50, k=3), random.Random(2)
    expected = routed(lambda calls: calls, dispatch)[0]
    for _ in range(20):
        assert torch.equal(routed(lambda calls: rng.sample(calls, len(calls)), dispatch)[0], expected)
    assert torch.equal(expected, dense(dispatch))


def test_answers_may_come_one_poll_at_a_time() -> None:
    held: list[ExpertCall] = []

    def one(calls: list[ExpertCall]) -> list[ExpertCall]:
        held.extend(calls)
        return [held.pop()]

    total, counts, _, clock = routed(one)
    assert torch.equal(total, dense(some_dispatch()))
    assert (counts.retries, clock.pauses) == (0, [])


def test_call_that_failed_is_sent_again_after_a_pause() -> None:
    failed: list[ExpertCall] = []

    def once(calls: list[ExpertCall]) -> list[ExpertReply | ExpertCall]:
        fresh = [call for call in calls if call.replica.expert % 2 and len(failed) < 4]
        failed.extend(fresh)
        return [bad(call) if call in fresh else call for call in calls]

    total, counts, transport, clock = routed(once)
    assert torch.equal(total, dense(some_dispatch()))
    again = transport.sent[EXPERTS:]
    assert [call.replica for call in again] == [call.replica for call in failed] and counts.retries == 4
    assert len(clock.pauses) == 1 and 0 < clock.pauses[0] < 1


def test_second_answer_to_a_call_is_not_used() -> None:
    def twice(calls: list[ExpertCall]) -> list[ExpertReply | ExpertCall]:
        return [r for call in calls for r in (call, ExpertReply(call.call_id, torch.full_like(call.rows_RD, 1e9)))]

    assert torch.equal(routed(twice)[0], dense(some_dispatch()))


def test_silence_ends_in_expert_unavailable_after_the_grace() -> None:
    clock = Clock()
    router = router_of(lambda calls: [call for call in calls if call.replica.expert not in (2, 5)], clock)
    with pytest.raises(ExpertUnavailable, match=r"no answer from experts \[2, 5\] within 60 s"):
        router.combine(router.dispatch(some_dispatch()), StepCounts())
    assert clock.now - 1000.0 == GRACE and clock.pauses == []


def test_failure_upon_failure_ends_in_expert_unavailable_with_the_reason() -> None:
    clock, counts = Clock(), StepCounts()
    router = router_of(lambda calls: [bad(call) if call.replica.expert == 4 else call for call in calls], clock)
    with pytest.raises(ExpertUnavailable, match=r"experts \[4\] within 60 s: expert 4 fell over"):
        router.combine(router.dispatch(some_dispatch()), counts)
    assert GRACE <= clock.now - 1000.0 <= GRACE + max(clock.pauses)
    assert counts.retries == len(sent_by(router).sent) - EXPERTS > 100
    router.replicas.check()


def test_answer_at_the_last_moment_counts() -> None:
    clock = Clock()

    def late(calls: list[ExpertCall]) -> list[ExpertCall]:
        clock.now += GRACE
        return calls

    router = router_of(late, clock)
    assert torch.equal(router.combine(router.dispatch(some_dispatch()), StepCounts()), dense(some_dispatch()))


def test_answers_to_a_call_that_was_given_up_do_not_reach_a_later_one() -> None:
    clock, held, quiet = Clock(), list[ExpertCall](), [True]

    def script(calls: list[ExpertCall]) -> list[ExpertReply | ExpertCall]:
        if quiet[0]:
            held.extend(calls)
            return []
        old, held[:] = held[:], calls  # what was given up first, then a poll later what is asked for now
        if old[0].layer == 0:
            return [ExpertReply(call.call_id, torch.full((1, HIDDEN), 1e9)) for call in old]
        return list(old)

    router, counts = router_of(script, clock), StepCounts()
    with pytest.raises(ExpertUnavailable):
        router.run([trunk(some_dispatch())], StepCounts())
    transport = sent_by(router)
    assert sorted(transport.abandoned) == sorted(call.call_id for call in transport.sent)
    quiet[0] = False
    dispatch = some_dispatch(layer=1, seed=3)
    assert torch.equal(router.run([trunk(dispatch)], counts)[0], dense(dispatch).sum(0))
    assert counts.retries == 0 and len({call.call_id for call in transport.sent}) == len(transport.sent)
    router.replicas.check()


def test_run_answers_each_layer_and_returns_what_the_trunk_returns() -> None:
    clock, counts = Clock(), StepCounts()
    dispatches = [some_dispatch(9, layer, seed=layer, k=3) for layer in range(4)]

    def slow(calls: list[ExpertCall]) -> list[ExpertCall]:
        clock.now += 0.25
        return calls

    router = router_of(slow, clock)
    (total,) = router.run([trunk(*dispatches)], counts)
    assert torch.equal(total, sum((dense(d).sum(0) for d in dispatches), torch.zeros(HIDDEN)))
    assert counts.expert_tokens == tuple(
        tuple(torch.bincount(d.experts_TK.flatten(), minlength=EXPERTS).tolist()) for d in dispatches
    )
    assert all(sum(row) == 9 * 3 for row in counts.expert_tokens)
    assert [chosen.tolist() for chosen in counts.chosen] == [d.experts_TK.tolist() for d in dispatches]
    assert (counts.retries, counts.dispatch_seconds) == (0, 1.0)


def test_trunk_without_layers_is_run_to_its_end() -> None:
    assert ExpertRouter(LocalTransport(), Replicas(())).run([trunk()], StepCounts())[0].tolist() == [0.0] * HIDDEN
