"""Where replicas begin, and which go."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.policy.replicas.placement import Node, Placed, assign, missing, place, surplus

A, B, C = (Node(name, {"CPU": 4.0, "GPU": 1.0}) for name in "abc")


def test_replicas_of_an_expert_are_spread_first_then_all() -> None:
    placed = [Placed(0, 0, "a"), Placed(1, 0, "b"), Placed(2, 0, "b")]
    assert place(0, [A, B], placed, {}) == "b", "a has this expert already"
    assert place(3, [A, B], placed, {}) == "a", "b has more"
    assert place(3, [A, B, C], placed, {}) == "c"
    assert place(9, [B, A], [], {}) == "a"


def test_a_node_must_have_what_is_needed() -> None:
    small = Node("small", {"CPU": 1.0})
    assert place(0, [small, B], [Placed(0, 0, "b")], {"GPU": 1.0}) == "b"
    assert place(0, [small], [], {"GPU": 1.0}) == "", "Ray waits for one, and may get it from an autoscaler"
    assert place(0, [small], [], {"GPU": 0.0}) == "small"
    assert place(0, [], [], {}) == ""


def test_what_one_takes_the_next_does_not_find() -> None:
    keys = [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert assign(keys[:3], [A, B], [], {"GPU": 0.5}) == {(0, 0): "a", (1, 0): "b", (0, 1): "b"}
    assert assign(keys, [A, B], [Placed(0, 9, "a")], {"GPU": 1.0}) == {keys[0]: "b", keys[1]: "a"} | dict.fromkeys(
        keys[2:], ""
    )
    assert assign(keys[:2], [A], [], {}) == dict.fromkeys(keys[:2], "a"), "what needs nothing always fits"


def test_those_without_a_node_go_first_then_those_that_share_theirs() -> None:
    mine = [Placed(0, 0, "a"), Placed(0, 1, "b"), Placed(0, 2, "b"), Placed(0, 3)]
    placed = [*mine, Placed(1, 0, "a"), Placed(2, 0, "a")]
    assert surplus(3, mine, placed) == [mine[3], mine[2], mine[0]]
    assert surplus(9, mine[:1], placed) == mine[:1]
    assert surplus(0, mine, placed) == [] == surplus(-1, mine, placed)


@given(st.integers(1, 6), st.integers(0, 12))
def test_copies_of_an_expert_on_two_nodes_differ_by_one_at_most(nodes: int, count: int) -> None:
    names = [Node(str(n)) for n in range(nodes)]
    placed: list[Placed] = []
    for slot in range(count):
        placed.append(Placed(0, slot, place(0, names, placed, {})))
    for going in range(count):
        here = [sum(p.node_id == n.node_id for p in placed) for n in names]
        assert max(here) - min(here) <= 1, going
        placed.remove(surplus(1, placed, placed)[0])


def test_what_is_missing_goes_into_free_slots() -> None:
    assert missing([], 2, 2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert missing([(0, 1), (1, 0)], 2, 1) == [], "a drained expert's only replica has another slot"
    assert missing([(0, 1), (0, 3), (1, 2)], 2, 3) == [(0, 0), (1, 0), (1, 1)]
    assert missing([(0, 0), (0, 1), (0, 2)], 1, 2) == [], "more than configured stay"
