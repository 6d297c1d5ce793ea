"""Two dispatches under way at once: their answers come in any order, with failures, hedges and late strays between."""

import itertools
import random
from collections.abc import Generator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.replica import Replica, one_each
from actors.routing.receipt import Receipt
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter, ExpertUnavailable
from actors.routing.step_counts import StepCounts
from actors.transport.local import LocalTransport
from actors.transport.seam import ExpertCall, ExpertReply
from actors.usage import UsageCounter
from model.routing import Dispatch
from tests.unit.actors.routing.test_router import (
    EXPERTS,
    GRACE,
    Clock,
    NeverLate,
    Scaling,
    Scripted,
    bad,
    dense,
    good,
    router_of,
    some_dispatch,
    table,
    trunk,
)
from tests.unit.actors.routing.test_router_replicas import NEVER, Rig


def two() -> tuple[Dispatch, Dispatch]:
    return some_dispatch(9, layer=1, seed=1), some_dispatch(7, layer=2, seed=2)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_dispatches_in_one_process_are_combined_in_any_order(order: Sequence[int]) -> None:
    router = ExpertRouter(LocalTransport(), Replicas(one_each([Scaling(e) for e in range(EXPERTS)])))
    dispatches = [some_dispatch(9, layer, seed=layer) for layer in range(3)]
    receipts = [router.dispatch(dispatch) for dispatch in dispatches]
    for index in order:
        assert torch.equal(router.combine(receipts[index], StepCounts()), dense(dispatches[index]))
    router.replicas.check()


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.randoms(use_true_random=False), st.booleans(), st.integers(1, 20))
def test_answers_of_two_dispatches_come_in_any_order(rng: random.Random, swapped: bool, at_a_time: int) -> None:
    """Each poll answers some of all calls under way, of whichever dispatch; one in five fails the first time."""
    held, failed = list[ExpertCall](), set[tuple[int, int]]()

    def script(calls: list[ExpertCall]) -> list[ExpertReply]:
        held.extend(calls)
        rng.shuffle(held)
        answered, held[:] = held[:at_a_time], held[at_a_time:]
        replies = []
        for call in answered:
            first = (call.layer, call.replica.expert) not in failed
            failed.add((call.layer, call.replica.expert))
            replies.append(bad(call) if first and rng.random() < 0.2 else good(call))
        return replies

    router, counts = router_of(script, Clock(), slots=2), StepCounts()
    receipts = [(router.dispatch(dispatch), dispatch) for dispatch in two()]
    for receipt, dispatch in reversed(receipts) if swapped else receipts:
        assert torch.equal(router.combine(receipt, counts), dense(dispatch))
    router.replicas.check()


def test_one_that_fails_costs_the_other_nothing() -> None:
    """Layer 1 never hears from one of its experts: it raises, its stray stays counted, and layer 2 has its answers."""
    clock, held = Clock(), list[ExpertCall]()
    first, second = two()
    silent = int(first.experts_TK[0, 0])

    def script(calls: list[ExpertCall]) -> list[ExpertReply | ExpertCall]:
        asked = [call for call in calls if call.layer == 1 and call.replica.expert == silent]
        held.extend(asked)
        return [call for call in calls if call.layer != 1 or call.replica.expert != silent]

    router = router_of(script, clock)
    receipts = router.dispatch(first), router.dispatch(second)
    with pytest.raises(ExpertUnavailable, match=rf"experts \[{silent}\]"):
        router.combine(receipts[0], StepCounts())
    assert clock.now - 1000.0 == GRACE
    assert torch.equal(router.combine(receipts[1], StepCounts()), dense(second))
    assert router.replicas.queued() == {(silent, 0): len(held[0].rows_RD)}, "the stray is still at its replica"


def test_a_dispatch_that_is_abandoned_leaves_strays_that_end() -> None:
    clock, held = Clock(), list[ExpertCall]()

    def script(calls: list[ExpertCall]) -> list[ExpertCall]:
        held.extend(call for call in calls if call.layer == 1)
        late = held[:] if any(call.layer == 3 for call in calls) else []
        return late + [call for call in calls if call.layer != 1]

    router = router_of(script, clock)
    first, second = two()
    router.abandon(router.dispatch(first))
    assert torch.equal(router.combine(router.dispatch(second), StepCounts()), dense(second))
    third = some_dispatch(layer=3)
    assert torch.equal(router.combine(router.dispatch(third), StepCounts()), dense(third))
    router.replicas.check()


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(0, 2**32), st.booleans())
def test_two_at_once_with_dead_slow_and_frozen_replicas(seed: int, swapped: bool) -> None:
    """With hedges, resends and answers that come when another dispatch is combined, ten times in a row."""
    rng = random.Random(seed)

    def behave(call: ExpertCall, now: float) -> tuple[float | None, bool]:
        if call.replica.index == 2:
            return 0.01, True
        return rng.choice([(0.01, True), (0.005, False), (5.0, True), (0.3, True), (3.0, False), (NEVER, True)])

    rig = Rig(behave, slots=3)
    for turn in range(10):
        dispatches = [some_dispatch(12, layer=layer, seed=2 * turn + layer) for layer in (0, 1)]
        receipts = [(rig.router.dispatch(dispatch), dispatch) for dispatch in dispatches]
        for receipt, dispatch in reversed(receipts) if swapped else receipts:
            assert torch.equal(rig.router.combine(receipt, rig.counts), dense(dispatch))
    strays = sum(stray.rows for stray in rig.router._strays.values())
    assert sum(rig.replicas.queued().values()) == strays and not rig.router._asked


def test_hedge_of_one_dispatch_does_not_answer_the_other() -> None:
    rig = Rig(lambda call, now: (0.2 if call.replica == Replica(3, 0) else 0.01, True))
    for turn in range(10):
        dispatches = [some_dispatch(12, layer=layer, seed=2 * turn + layer) for layer in (0, 1)]
        receipts = [rig.router.dispatch(dispatch) for dispatch in dispatches]
        for receipt, dispatch in zip(receipts, dispatches, strict=True):
            assert torch.equal(rig.router.combine(receipt, rig.counts), dense(dispatch))
    assert rig.usage.hedges[3] > 0 and rig.counts.retries == 0


class Full(Scripted):
    """Takes three calls and fails with the fourth."""

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        super().submit(calls[:3])
        raise MemoryError("the store is full")


def test_calls_that_could_not_be_sent_leave_nothing_behind() -> None:
    clock = Clock()
    replicas = Replicas(table(), random.Random(5), clock)
    full = Full(lambda calls: calls, clock)
    router = ExpertRouter(full, replicas, UsageCounter(EXPERTS), GRACE, NeverLate(), clock, clock.pause)
    with pytest.raises(MemoryError):
        router.dispatch(some_dispatch())
    replicas.check()
    assert not router._asked and set(full.abandoned) >= {call.call_id for call in full.sent}
    for reply in full.poll(0.0, ()):
        router._accept(reply)
    replicas.check()


def test_trunks_run_in_turns_and_the_head_computes_for_one_while_experts_do_for_another() -> None:
    """What is dispatched stands before what is waited for: B's layer is under way while A's is combined."""
    done: list[str] = []

    class Noting(ExpertRouter):
        def dispatch(self, dispatch: Dispatch) -> Receipt:
            done.append(f"ask {dispatch.layer}")
            return super().dispatch(dispatch)

        def combine(self, receipt: Receipt, counts: StepCounts) -> torch.Tensor:
            done.append(f"take {receipt.dispatch.layer}")
            return super().combine(receipt, counts)

    router = Noting(LocalTransport(), Replicas(one_each([Scaling(e) for e in range(EXPERTS)])))
    a, b = [some_dispatch(5, layer, seed=layer) for layer in (0, 1)], [some_dispatch(7, 10, seed=3)]
    counts = StepCounts()
    first, second = router.run([trunk(*a), trunk(*b)], counts)
    assert torch.equal(first, dense(a[0]).sum(0) + dense(a[1]).sum(0)) and torch.equal(second, dense(b[0]).sum(0))
    assert done == ["ask 0", "ask 10", "take 0", "ask 1", "take 10", "take 1"]


def test_counts_of_two_trunks_are_those_of_one() -> None:
    router = router_of(lambda calls: calls, Clock())
    layers = [some_dispatch(12, layer, seed=layer) for layer in range(3)]
    whole, halves = StepCounts(), StepCounts()
    router.run([trunk(*layers)], whole)
    router.run([trunk(*(part(d, rows) for d in layers)) for rows in (slice(0, 5), slice(5, 12))], halves)
    assert halves.expert_tokens == whole.expert_tokens
    assert all(torch.equal(a, b) for a, b in zip(halves.chosen, whole.chosen, strict=True))


def part(dispatch: Dispatch, rows: slice) -> Dispatch:
    return Dispatch(dispatch.layer, dispatch.x_TD[rows], dispatch.experts_TK[rows], dispatch.weights_TK[rows])


def test_a_trunk_that_fails_leaves_nothing_under_way_of_another() -> None:
    router = router_of(lambda calls: calls, Clock())

    def broken() -> Generator[Dispatch, torch.Tensor, torch.Tensor]:
        yield some_dispatch(5, 0)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        router.run([broken(), trunk(some_dispatch(7, 1), some_dispatch(7, 2))], StepCounts())
    assert router.run([trunk(some_dispatch(7, 1))], StepCounts())
    router.replicas.check()
