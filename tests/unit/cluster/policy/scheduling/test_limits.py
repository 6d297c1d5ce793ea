"""Whether one more request may wait."""

import pytest

from cluster.policy.scheduling.limits import Backlog, QueueBounds, admits

BOUNDS = QueueBounds(sequences=90, tokens=1000)


@pytest.mark.parametrize(
    ("backlog", "tokens", "taken"),
    [
        (Backlog(0, 0, 0, 0), 10, True),
        (Backlog(89, 100, 0, 0), 10, True),
        (Backlog(90, 100, 0, 0), 10, False),
        (Backlog(95, 100, 0, 0), 10, False),
        (Backlog(90, 100, 0, 1), 10, True),  # one of those that wait is about to get its slot
        (Backlog(5, 990, 0, 0), 10, True),
        (Backlog(5, 991, 0, 0), 10, False),
        (Backlog(0, 0, 0, 0), 5000, True),  # nothing waits: whatever its length
        (Backlog(3, 900, 0, 3), 5000, True),
        (Backlog(4, 900, 0, 3), 5000, False),
    ],
)
def test_sequences_and_tokens_are_bounded(backlog: Backlog, tokens: int, taken: bool) -> None:
    assert admits(BOUNDS, backlog, tokens) is taken


def test_one_client_alone_leaves_a_place_for_others() -> None:
    waiting = 0
    while admits(BOUNDS, Backlog(waiting, waiting, waiting, 0), 1):
        waiting += 1
    assert waiting == 80, "eight ninths"
    assert admits(BOUNDS, Backlog(waiting, waiting, 0, 0), 1), "another client is taken"


def test_a_small_queue_can_be_filled() -> None:
    bounds = QueueBounds(sequences=1, tokens=10)
    assert admits(bounds, Backlog(0, 0, 0, 0), 1)
    assert not admits(bounds, Backlog(1, 1, 1, 0), 1)
