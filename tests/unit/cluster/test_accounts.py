"""How long a refused client is sent away."""

import pytest

from cluster.accounts import Accounts
from cluster.policy.scheduler import Drawn
from cluster.policy.sequence import Sequence
from model.batch import SampledToken, SamplingParams


def ended(times: list[float]) -> Accounts:
    accounts = Accounts()
    for i, time in enumerate(times):
        sequence = Sequence(str(i), [1], 1, SamplingParams(), 1, frozenset())
        accounts.start([sequence], time)
        accounts.event(Drawn(sequence, SampledToken(0, 5, 0.0), stopped=False, exhausted=True, routing=()), time)
    return accounts


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
