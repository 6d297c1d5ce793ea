"""Hedges beyond the usual are named, once in a minute for each expert."""

from cluster.policy.replicas.hedging import FEWEST, Excess, Hedging


def watching(calls: int = 1000, hedges: int = 100) -> Hedging:
    """Has seen a head with two experts at 0 s."""
    hedging = Hedging()
    assert hedging.due("h", [calls, calls], [hedges, hedges], 0.0) == [], "what was before the first look is not judged"
    return hedging


def test_one_call_in_a_hundred_is_usual() -> None:
    assert watching().due("h", [2000, 1000], [110, 100], 2.0) == []


def test_more_than_one_in_twenty_is_named_of_the_expert_only() -> None:
    assert watching().due("h", [1100, 1100], [106, 105], 2.0) == [Excess(0, 6, 100)]


def test_a_few_are_chance_even_if_every_call_was_hedged() -> None:
    hedging = watching()
    assert hedging.due("h", [1000, 1000], [100 + FEWEST - 1, 100], 2.0) == []
    assert hedging.due("h", [1000, 1000], [100 + FEWEST, 100], 4.0) == [Excess(0, FEWEST, 0)]


def test_an_expert_is_named_once_in_a_minute_and_others_meanwhile() -> None:
    hedging = watching()
    assert hedging.due("h", [1010, 1000], [110, 100], 2.0) == [Excess(0, 10, 10)]
    assert hedging.due("h", [1020, 1010], [120, 110], 4.0) == [Excess(1, 10, 10)]
    assert hedging.due("h", [1050, 1050], [150, 150], 61.0) == []
    assert hedging.due("h", [1060, 1050], [160, 150], 63.0) == [Excess(0, 10, 10)], "counted since the minute began"


def test_the_counters_of_another_head_begin_anew() -> None:
    hedging = watching()
    assert hedging.due("i", [10, 10], [9, 9], 2.0) == []
    assert hedging.due("i", [20, 20], [18, 9], 4.0) == [Excess(0, 9, 10)]
