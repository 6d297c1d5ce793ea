"""Replicas that are slower than the others of their expert, and the calls that they get."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.replica import Replica
from actors.routing.paces import Paces
from actors.routing.replicas import Replicas

A, B, C = (Replica(0, slot, "first") for slot in range(3))


def seen(**ratios: float) -> Paces:
    paces = Paces()
    for name, ratio in ratios.items():
        for _ in range(50):
            paces.observe({"a": A, "b": B, "c": C}[name], ratio * 0.01, expected=0.01)
    return paces


def test_a_slow_one_is_told_by_its_service_time_and_a_little_does_not_count() -> None:
    assert seen(a=0.5, b=0.6, c=1.5).of([A, B, C]) == [1.0, 1.0, 3.0]
    assert seen().of([A, B]) == [1.0, 1.0]
    assert seen(a=2.0).of([A, B]) == [1.0, 1.0], "nothing is known of the other"
    assert seen(a=2.0, b=1.0).of([A, B, C]) == [2.0, 1.0, 1.0], "who has not served yet shall"


def test_the_last_calls_count_most() -> None:
    paces = seen(a=1.0, b=1.0)
    for _ in range(30):
        paces.observe(B, 0.04, expected=0.01)
    assert paces.of([A, B])[1] > 3.5
    paces.observe(B, 1.0, expected=0.0)
    assert paces.of([A, B])[1] < 4.0, "nothing is learned while it is not known what to expect"


def test_replicas_that_have_gone_are_forgotten() -> None:
    paces = seen(a=1.0, b=3.0)
    for index in range(2000):
        paces.observe(Replica(1, index), 0.01, expected=0.01)
        paces.observe(B, 0.03, expected=0.01)
    assert paces.of([A, B]) == [1.0, 1.0], "nothing is known of the first any more"
    assert paces.of([Replica(1, 1999), B])[1] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("ratios", "rows", "line", "shares"),
    [
        ({"a": 0.5, "b": 1.0}, 90, (0.0, 1.0), [60, 30]),
        ({"a": 0.5, "b": 1.0}, 90, (30.0, 1.0), [70, 20]),  # 30 + 70 seconds, and twice 30 + 20
        ({"a": 0.25, "b": 1.0}, 60, (30.0, 1.0), [60, 0]),  # alone 90 s; there a call without a row takes 120
        ({"a": 0.01, "b": 1.0}, 10, (0.0, 1.0), [10, 0]),
        ({}, 7, (1.0, 1.0), [2, 3, 2]),
        ({"a": 0.5, "b": 1.0}, 6, (1.0, 0.0), [2, 2, 2]),  # what a row takes is not known yet
    ],
)
def test_parts_of_a_call_end_together(
    ratios: dict[str, float], rows: int, line: tuple[float, float], shares: list[int]
) -> None:
    assert seen(**ratios).shares(rows, [A, B, C][: len(shares)], line) == shares


@given(
    st.integers(1, 300),
    st.lists(st.floats(0.01, 100.0), min_size=1, max_size=3),
    st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 1.0)),
)
def test_shares_add_up(rows: int, ratios: list[float], line: tuple[float, float]) -> None:
    shares = seen(**dict(zip("abc", ratios, strict=False))).shares(rows, [A, B, C][: len(ratios)], line)
    assert sum(shares) == rows and all(share >= 0 for share in shares)


def test_calls_go_to_the_fast_one_until_it_has_more_to_do_and_now_and_then_to_the_slow_one() -> None:
    now = [0.0]
    found = Replicas(((A, B),), random.Random(1), clock=lambda: now[0])
    found.paces = seen(a=0.5, b=1.0)
    drawn = Counter(found.choose(0, 10) for _ in range(400))
    assert drawn[B] == 1
    now[0] += 11.0
    drawn = Counter(found.choose(0, 10) for _ in range(400))
    assert drawn[B] == 1, "one call every ten seconds"
    found.send(A, 20)
    drawn = Counter(found.choose(0, 10) for _ in range(400))
    assert drawn[B] == 400, "30 rows at full speed take longer than 10 at half"


def test_parts_go_to_the_faster_replicas_first() -> None:
    found = Replicas(((A, B, C),))
    found.paces = seen(a=3.0, b=1.0, c=1.0)
    assert found.spread(0, 2) == [B, C]
