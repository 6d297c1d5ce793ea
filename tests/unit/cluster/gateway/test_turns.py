"""Parties take turns, whatever each of them has waiting."""

from cluster.gateway.turns import Turns


def test_parties_take_turns_and_some_may_have_to_wait() -> None:
    turns = Turns[str, int]()
    for party, item in (("flood", 1), ("flood", 2), ("flood", 3), ("client", 4)):
        turns.add(party, item)
    assert list(turns) == ["flood", "client"] and turns.waiting("flood") == 3
    assert turns.pop() == ("flood", 1)
    assert turns.pop() == ("client", 4)
    assert turns.pop(lambda party: party != "flood") is None
    assert [turns.pop(), turns.pop(), turns.pop()] == [("flood", 2), ("flood", 3), None]
    turns.check()


def test_an_item_may_leave_out_of_turn_and_only_once() -> None:
    turns = Turns[str, int]()
    turns.add("alice", 1)
    assert turns and turns.remove("alice", 1)
    assert not turns and not turns.remove("alice", 1)
    turns.check()
