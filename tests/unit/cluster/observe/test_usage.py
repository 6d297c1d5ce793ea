"""What each expert did between two views."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from actors.replica import Replica, ReplicaId
from actors.usage import HeadUsage, UsageCounter
from cluster.observe.usage import Load, between, since_start
from cluster.observe.view import ClusterView, EngineCounters, Snapshot
from cluster.policy.replicas.lifecycle import Member, State

Rows = Sequence[Sequence[int]]


def head(counter: UsageCounter, incarnation: str = "h", queued: dict[ReplicaId, int] | None = None) -> HeadUsage:
    return HeadUsage(incarnation, counter.snapshot(), queued or {}, counter.retries[:], counter.hedges[:])


def view(at: float, rows: Rows = (), usage: HeadUsage | None = None, ready: tuple[int, ...] = (1, 1)) -> ClusterView:
    """A view at which so many replicas of each expert are ready, and one more is lost."""
    members = [Member(ReplicaId(e, index), State.READY, 0.0) for e, count in enumerate(ready) for index in range(count)]
    lost = [Member(ReplicaId(e, 9), State.LOST, 0.0) for e in range(len(ready))]
    snapshot = Snapshot(1, ready, (*members, *lost), {}, ())
    return ClusterView(at, snapshot, usage, EngineCounters(expert_rows=tuple(map(tuple, rows))))


def test_rows_by_layer_and_over_all() -> None:
    window = between(view(5.0, [[1, 1], [0, 4]]), view(7.0, [[4, 2], [0, 8]]))
    assert window.seconds == 2.0
    assert window.layers == [[Load(0, 3, 1.5), Load(1, 1, 0.5)], [Load(0, 0, 0.0), Load(1, 4, 2.0)]]
    assert window.experts == [Load(0, 3, 0.75), Load(1, 5, 1.25)]


def test_without_any_rows_nothing_is_divided_by_them() -> None:
    window = between(view(0.0), view(0.0, [[0, 0]]))
    assert window.layers == [[Load(0, 0, 0.0), Load(1, 0, 0.0)]]


def test_what_replicas_did_since_the_first_look() -> None:
    counter = UsageCounter(2)
    counter.served(Replica(1, 0), 100, 9.0)
    counter.again(1, hedged=False)
    before = view(0.0, [[0, 0]], head(counter))
    counter.served(Replica(1, 0), 6, 0.3)
    counter.served(Replica(1, 3), 2, 0.1)
    counter.again(1, hedged=True)
    queued = {ReplicaId(1, 0): 5, ReplicaId(1, 3): 2, ReplicaId(0, 0): 9}
    after = view(2.0, [[0, 8]], head(counter, queued=queued), (1, 2))
    idle, busy = between(before, after).experts
    assert (idle.utilization, idle.queued, idle.service_p99, idle.retries) == (0.0, 9, 0.0, 0)
    assert busy.utilization == pytest.approx(0.4 / 2.0 / 2)
    assert (busy.queued, busy.retries, busy.hedges) == (7, 0, 1)
    assert 0.1 <= busy.service_p50 <= 0.121 and 0.3 <= busy.service_p99 <= 0.361


def test_a_restarted_head_counts_from_nothing() -> None:
    counter = UsageCounter(1)
    counter.served(Replica(0, 0), 1, 5.0)
    before = view(0.0, [[5]], head(counter), (1,))
    counter = UsageCounter(1)
    counter.served(Replica(0, 0), 1, 0.5)
    (load,) = between(before, view(1.0, [[6]], head(counter, "another"), (1,))).experts
    assert load.utilization == 0.5


def test_a_head_that_does_not_answer_leaves_the_rows() -> None:
    assert between(view(0.0), view(1.0, [[2, 2]])).experts == [Load(0, 2, 1.0), Load(1, 2, 1.0)]


def test_since_the_start_everything_counts() -> None:
    counter = UsageCounter(2)
    counter.served(Replica(1, 0), 6, 2.0)
    now = replace(view(14.0, [[0, 8]], head(counter)), started=10.0)
    assert since_start(now).seconds == 4.0
    assert [(load.rows, load.utilization) for load in since_start(now).experts] == [(0, 0.0), (8, 0.5)]
