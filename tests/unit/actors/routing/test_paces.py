"""Who is slower than the other replicas of an expert, and what that changes."""

import random
from collections import Counter

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
    paces.keep([A])
    assert paces.of([A, B]) == [1.0, 1.0]


def test_parts_of_a_call_end_together() -> None:
    assert seen(a=0.5, b=1.0).shares(90, [A, B]) == [60, 30]
    assert seen().shares(7, [A, B, C]) == [2, 3, 2]
    assert seen(a=0.01, b=1.0).shares(10, [A, B]) == [10, 0], "one row there takes longer than all here"


@given(st.integers(1, 300), st.lists(st.floats(0.01, 100.0), min_size=1, max_size=3))
def test_shares_add_up(rows: int, ratios: list[float]) -> None:
    shares = seen(**dict(zip("abc", ratios, strict=False))).shares(rows, [A, B, C][: len(ratios)])
    assert sum(shares) == rows and all(share >= 0 for share in shares)


def test_calls_go_to_the_fast_one_until_it_has_more_to_do_and_now_and_then_to_the_slow_one() -> None:
    found = Replicas(((A, B),), random.Random(1))
    found.paces = seen(a=0.5, b=1.0)
    drawn = Counter(found.choose(0, 10) for _ in range(4000))
    assert 10 < drawn[B] < 60
    found.send(A, 20)
    drawn = Counter(found.choose(0, 10) for _ in range(400))
    assert drawn[B] > 380, "30 rows at full speed take longer than 10 at half"
