from cluster.policy.reluctance import Reluctance


def test_a_few_refusals_a_second_are_answered_at_once_and_more_are_held_back() -> None:
    reluctance = Reluctance(at_once=3, seconds=2.0)
    assert [reluctance.seconds("a", 10.1, 0) for _ in range(5)] == [0, 0, 0, 2.0, 2.0]
    assert reluctance.seconds("b", 10.9, 0) == 0, "each address for itself"
    assert reluctance.seconds("a", 11.0, 0) == 0, "a second later there are some again"


def test_so_many_are_held_at_a_time() -> None:
    reluctance = Reluctance(at_once=0, seconds=1.0, most=2)
    assert [reluctance.seconds("a", 0.0, held) for held in range(4)] == [1.0, 1.0, 0, 0]
