"""How long a refused client is sent away."""

import pytest

from cluster.engine.statistics import Statistics
from cluster.policy.scheduling.sequence import NextToken, Sequence, SequenceRequest
from model.batch import SampledToken, SamplingParams


def sequence(key: str) -> Sequence:
    return Sequence(SequenceRequest((1,), SamplingParams(), 1, sequence_id=key))


def end(statistics: Statistics, which: Sequence, now: float) -> None:
    statistics.events([NextToken(which, SampledToken(0, 5), stopped=False, exhausted=True)], now)


def ended(times: list[float]) -> Statistics:
    """One goes on while others end at these times."""
    statistics, others = Statistics(), [sequence(str(time)) for time in times]
    statistics.start([sequence("on"), *others], 0.0)
    for other, time in zip(others, times, strict=True):
        end(statistics, other, time)
    return statistics


@pytest.mark.parametrize(
    ("ends", "waiting", "seconds"),
    [
        ([], 100, 1.0),  # nothing is known yet
        ([0.0], 100, 1.0),
        ([0.0, 5.0], 1, 5.0),  # two in ten seconds: a place in five
        ([0.0, 5.0], 8, 5.0),
        ([0.0, 5.0], 16, 10.0),  # an eighth of those that wait
        ([0.0, 5.0], 1000, 60.0),
        ([9.9, 9.95], 4, 1.0),
    ],
)
def test_an_eighth_of_the_queue_comes_in_first(ends: list[float], waiting: int, seconds: float) -> None:
    assert ended(ends).retry_seconds(10.0, waiting) == seconds


def test_time_in_which_nothing_ran_says_nothing_about_the_pace() -> None:
    statistics = Statistics()
    for number, start in enumerate((0.0, 1000.0, 5000.0)):
        one = sequence(str(number))
        statistics.start([one], start)
        end(statistics, one, start + 6.0)
    assert statistics.retry_seconds(9000.0, 1) == 4.0, "three ends, the last twelve busy seconds after the first began"
    dropped = sequence("dropped")
    statistics.start([dropped], 10_000.0)
    statistics.forget("dropped", 10_003.0)
    assert statistics.retry_seconds(20_000.0, 1) == 5.0
