"""What replicas do, in counters that only grow."""

import pytest

from actors.replica import Replica, ReplicaId
from actors.usage import UsageCounter, quantile


def test_counters_and_copies() -> None:
    counter = UsageCounter(2)
    counter.served(Replica(1, 0, "a"), 3, 0.01)
    before = counter.snapshot()
    counter.served(Replica(1, 0, "restarted"), 5, 0.03)
    counter.served(Replica(1, 2), 1, 0.0)
    counter.again(1, hedged=True)
    counter.again(1, hedged=False)
    after, first = counter.snapshot(), ReplicaId(1, 0)
    assert (before[first].calls, before[first].rows) == (1, 3) and set(before) == {first}
    assert (after[first].calls, after[first].rows) == (2, 8)
    assert after[first].busy_seconds == pytest.approx(0.04)
    assert (counter.retries, counter.hedges) == ([0, 1], [0, 1])


@pytest.mark.parametrize("seconds", [1e-6, 1e-4, 0.003, 0.7, 12.0])
def test_a_quantile_is_at_most_a_fifth_too_long(seconds: float) -> None:
    counter = UsageCounter(1)
    for _ in range(98):
        counter.served(Replica(0, 0), 1, seconds)
    counter.served(Replica(0, 0), 1, 15.0)
    times = counter.snapshot()[ReplicaId(0, 0)].times
    assert max(seconds, 1e-5) <= quantile(times, 0.5) * (1 + 1e-9) <= max(seconds, 1e-5) * 1.2 * (1 + 1e-6)
    assert quantile(times, 1.0) >= 15.0


def test_no_calls_take_no_time() -> None:
    assert quantile([0, 0], 0.99) == 0.0
