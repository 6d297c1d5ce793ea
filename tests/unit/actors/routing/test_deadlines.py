"""What a layer's calls are expected to take, and from when on they are doubted."""

import math
import random

import pytest

from actors.routing.deadlines import Deadlines

FACTOR, FLOOR = 4.0, 0.25


def learnt(
    start: float, slope: float, calls: int = 300, noise: float = 0.0, rows: tuple[int, int] = (1, 64)
) -> Deadlines:
    patience, rng = Deadlines(FACTOR, FLOOR), random.Random(1)
    for _ in range(calls):
        n = rng.randint(*rows)
        patience.observe(n, (start + slope * n) * (1 + noise * rng.random()))
    return patience


def test_it_finds_the_line() -> None:
    patience = learnt(0.01, 0.002)
    assert patience.line() == pytest.approx((0.01, 0.002), rel=1e-3)
    assert patience.expect(100) == pytest.approx(0.21, rel=1e-3)


def test_nothing_seen_means_the_floor_no_hedges_and_no_splits() -> None:
    patience = Deadlines(FACTOR, FLOOR)
    assert (patience.deadline(1000), patience.hedge_after(1000), patience.parts(1000, 4)) == (FLOOR, math.inf, 1)


def test_calls_of_one_size_have_no_slope() -> None:
    patience = learnt(0.01, 0.0, noise=0.5, rows=(8, 8))
    assert patience.line()[1] == 0.0
    assert patience.expect(8) == pytest.approx(0.0125, rel=0.1)


def test_a_deadline_is_a_multiple_with_a_floor() -> None:
    patience = learnt(0.01, 0.002)
    assert patience.deadline(1) == FLOOR
    assert patience.deadline(1000) == pytest.approx(FACTOR * 2.01, rel=1e-3)


def test_one_that_hung_counts_as_its_deadline() -> None:
    patience = learnt(0.01, 0.0)
    patience.observe(8, 3600.0)
    assert patience.expect(8) < 0.02


def test_a_machine_that_became_slower_is_followed() -> None:
    patience = learnt(0.1, 0.0)
    for _ in range(300):
        patience.observe(8, 10.0)
    assert patience.expect(8) == pytest.approx(10.0, rel=0.1)


def test_hedges_begin_where_one_in_a_hundred_is_slower() -> None:
    patience, rng = Deadlines(FACTOR, FLOOR), random.Random(3)
    times = [0.01 * (1 + rng.expovariate(3)) for _ in range(2000)]
    for seconds in times:
        patience.observe(8, seconds)
    slower = sum(seconds > patience.hedge_after(8) for seconds in times[-1000:])
    assert 0 < slower < 40


@pytest.mark.parametrize(("rows", "replicas", "parts"), [(4, 4, 1), (10, 4, 2), (15, 4, 3), (1000, 4, 4), (1000, 1, 1)])
def test_a_part_costs_at_least_what_a_call_does_by_itself(rows: int, replicas: int, parts: int) -> None:
    assert learnt(0.01, 0.002).parts(rows, replicas) == parts


def test_no_part_is_without_rows_however_much_a_row_costs() -> None:
    steep = learnt(0.001, 0.01)
    assert [steep.parts(rows, 4) for rows in (1, 2, 3, 9)] == [1, 2, 3, 4]
