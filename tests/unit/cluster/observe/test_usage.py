"""What each expert did between two looks."""

import pytest

from actors.replica import Replica, ReplicaId
from actors.routing.usage_counter import UsageCounter
from actors.usage import HeadUsage
from cluster.observe.usage import Counters, Load, between


def head(counter: UsageCounter, incarnation: str = "h", queued: dict[ReplicaId, int] | None = None) -> HeadUsage:
    return HeadUsage(incarnation, counter.snapshot(), queued or {}, counter.retries[:], counter.hedges[:])


def test_rows_by_layer_and_over_all() -> None:
    window = between(Counters(5.0, [[1, 1], [0, 4]]), Counters(7.0, [[4, 2], [0, 8]]), [1, 1])
    assert window.seconds == 2.0
    assert window.layers == [[Load(0, 3, 1.5), Load(1, 1, 0.5)], [Load(0, 0, 0.0), Load(1, 4, 2.0)]]
    assert window.experts == [Load(0, 3, 0.75), Load(1, 5, 1.25)]


def test_without_any_rows_nothing_is_divided_by_them() -> None:
    window = between(Counters(0.0), Counters(0.0, [[0, 0]]), [1, 1])
    assert window.layers == [[Load(0, 0, 0.0), Load(1, 0, 0.0)]]


def test_what_replicas_did_since_the_first_look() -> None:
    counter = UsageCounter(2)
    counter.served(Replica(1, 0), 100, 9.0)
    counter.again(1, hedged=False)
    before = Counters(0.0, [[0, 0]], head(counter))
    counter.served(Replica(1, 0), 6, 0.3)
    counter.served(Replica(1, 3), 2, 0.1)
    counter.again(1, hedged=True)
    after = Counters(2.0, [[0, 8]], head(counter, queued={ReplicaId(1, 0): 5, ReplicaId(1, 3): 2, ReplicaId(0, 0): 9}))
    idle, busy = between(before, after, [1, 2]).experts
    assert (idle.utilization, idle.queued, idle.service_p99, idle.retries) == (0.0, 9, 0.0, 0)
    assert busy.utilization == pytest.approx(0.4 / 2.0 / 2)
    assert (busy.queued, busy.retries, busy.hedges) == (7, 0, 1)
    assert 0.1 <= busy.service_p50 <= 0.121 and 0.3 <= busy.service_p99 <= 0.361


def test_a_restarted_head_counts_from_nothing() -> None:
    counter = UsageCounter(1)
    counter.served(Replica(0, 0), 1, 5.0)
    before = Counters(0.0, [[5]], head(counter))
    counter = UsageCounter(1)
    counter.served(Replica(0, 0), 1, 0.5)
    (load,) = between(before, Counters(1.0, [[6]], head(counter, "another")), [1]).experts
    assert load.utilization == 0.5


def test_a_head_that_does_not_answer_leaves_the_rows() -> None:
    assert between(Counters(0.0), Counters(1.0, [[2, 2]]), [1, 1]).experts == [Load(0, 2, 1.0), Load(1, 2, 1.0)]
