"""Which replica is chosen, and which are left alone for a while."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.replica import Replica
from actors.routing.replicas import Replicas

A, B, C = (Replica(0, slot, "first") for slot in range(3))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def replicas(*row: Replica) -> tuple[Replicas, Clock]:
    clock = Clock()
    return Replicas((row,), random.Random(1), clock), clock


def test_idle_ones_are_drawn_alike() -> None:
    found, _ = replicas(A, B, C)
    drawn = Counter(found.choose(0) for _ in range(3000))
    assert set(drawn) == {A, B, C} and min(drawn.values()) > 850


def test_the_one_with_more_rows_of_two_is_not_taken() -> None:
    found, _ = replicas(A, B, C)
    found.send(B, 7)
    found.send(C, 9)
    drawn = Counter(found.choose(0) for _ in range(300))
    assert C not in drawn and drawn[A] > drawn[B]
    found.answered(B, 7)
    assert found.rows_of(B) == 0 and {found.choose(0) for _ in range(300)} == {A, B}


def test_nobody_there_is_nobody_chosen() -> None:
    found, _ = replicas()
    assert found.choose(0) is None and found.spread(0, 2) == []
    assert replicas(A)[0].trusted(0, without=[A]) == []


def test_who_failed_is_left_alone_for_longer_each_time_but_is_better_than_nobody() -> None:
    found, clock = replicas(A, B)
    for pause in (1.0, 2.0, 4.0):
        found.send(A, 1)
        found.failed(A, 1)
        assert {found.choose(0) for _ in range(20)} == {B}
        found.table = ((A,),)
        assert found.choose(0) == A
        found.table = ((A, B),)
        clock.now += pause
        assert A in found.trusted(0)
    found.send(A, 1)
    found.answered(A, 1)
    found.send(A, 1)
    found.failed(A, 1)
    clock.now += 1.0
    assert A in found.trusted(0), "an answer makes up for all before"


def test_who_is_late_is_doubted_until_it_answers() -> None:
    found, clock = replicas(A, B)
    found.send(A, 4)
    found.late(A)
    clock.now += 30.0
    assert found.trusted(0) == [B] and found.doubted() == {(0, 0)}
    found.answered(A, 4)
    assert found.trusted(0) == [A, B] and not found.doubted()


def test_a_restarted_process_is_another_replica() -> None:
    found, _ = replicas(A, B)
    found.send(A, 1)
    found.failed(A, 1)
    again = Replica(0, 0, "second")
    found.table = ((again, B),)
    assert found.trusted(0) == [again, B]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.sampled_from(["answered", "failed", "late"]))))
def test_rows_under_way_come_back_to_none(ends: list[tuple[int, int, str]]) -> None:
    found, _ = replicas(A, B, C)
    for slot, rows, _ in ends:
        found.send((A, B, C)[slot], rows)
    assert sum(found.queued().values()) == sum(rows for _, rows, _ in ends)
    for slot, rows, end in ends:
        if end == "late":
            found.late((A, B, C)[slot])
        (found.failed if end == "failed" else found.answered)((A, B, C)[slot], rows)
    found.check()
    assert not found.queued()
