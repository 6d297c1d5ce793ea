"""Where replicas begin, and which go."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from actors.replica import ReplicaId
from actors.vitals import NodeInfo
from cluster.policy.replicas.placement import assign, paces, place, surplus, unused


def node(name: str, **free: float) -> NodeInfo:
    return NodeInfo(name, "10.0.0.1", True, free)


A, B, C = (node(name, CPU=4.0, GPU=1.0) for name in "abc")
FIRST, SECOND, THIRD, FOURTH = (ReplicaId(0, index) for index in range(4))


def test_replicas_of_an_expert_are_spread_first_then_all() -> None:
    placed = {ReplicaId(0, 0): "a", ReplicaId(1, 0): "b", ReplicaId(2, 0): "b"}
    assert place(0, [A, B], placed, {}) == "b", "a has this expert already"
    assert place(3, [A, B], placed, {}) == "a", "b has more"
    assert place(3, [A, B, C], placed, {}) == "c"
    assert place(9, [B, A], {}, {}) == "a"


def test_a_node_must_have_what_is_needed() -> None:
    small = node("small", CPU=1.0)
    assert place(0, [small, B], {ReplicaId(0, 0): "b"}, {"GPU": 1.0}) == "b"
    assert place(0, [small], {}, {"GPU": 1.0}) == "", "Ray waits for one, and may get it from an autoscaler"
    assert place(0, [small], {}, {"GPU": 0.0}) == "small"
    assert place(0, [], {}, {}) == ""


def test_memory_is_one_of_the_needs() -> None:
    small, large = node("small", memory=1e9), node("large", memory=5e9)
    ids = [ReplicaId(expert, 0) for expert in range(4)]
    placed = assign(ids, [small, large], {}, {"memory": 2e9})
    assert list(placed.values()) == ["large", "large", "", ""], "none where it does not fit"


def of_speed(**speeds: float) -> list[NodeInfo]:
    return [replace(node(name), speed=speed) for name, speed in speeds.items()]


def test_replicas_are_placed_in_proportion_to_speed() -> None:
    ids = [ReplicaId(expert, 0) for expert in range(8)]
    placed = list(assign(ids, of_speed(fast=100.0, slow=50.0), {}, {}).values())
    assert (placed.count("fast"), placed.count("slow")) == (5, 3), "5 calls at full speed, 3 at half: 5 and 6 parts"
    placed = list(assign(ids, of_speed(fast=100.0, slow=10.0), {}, {}).values())
    assert (placed.count("fast"), placed.count("slow")) == (8, 0), "even one there would take longer than all eight"
    spread = assign([ReplicaId(0, 0), ReplicaId(0, 1)], of_speed(fast=100.0, slow=10.0), {}, {})
    assert set(spread.values()) == {"fast", "slow"}, "a copy on a slow machine survives the loss of the fast one"


def test_what_goes_is_on_the_node_that_is_slowest_for_what_it_has() -> None:
    """So that scaling up and down again ends where placing afresh would."""
    nodes = of_speed(fast=100.0, slow=10.0)
    first = {ReplicaId(expert, 0): "fast" for expert in range(8)}
    second = ReplicaId(0, 1)
    placed = {**first, second: place(0, nodes, first, {})}
    mine = {replica_id: node_id for replica_id, node_id in placed.items() if replica_id.expert == 0}
    assert placed[second] == "slow", "a copy elsewhere survives the loss of the first"
    assert surplus(1, mine, placed, paces(nodes)) == [second]
    assert surplus(1, mine, placed) == [ReplicaId(0, 0)], "among nodes alike the one with most loses one"


def test_speeds_that_are_not_known_or_hardly_differ_do_not_count() -> None:
    assert paces(of_speed(a=100.0, b=80.0, c=0.0, d=50.0)) == {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.5}
    assert paces(of_speed(a=100.0, b=0.0, c=40.0)) == {"a": 1.0, "b": 0.4, "c": 0.4}
    assert paces(of_speed(a=0.0, b=0.0)) == {"a": 1.0, "b": 1.0} and paces([]) == {}
    ids = [ReplicaId(expert, 0) for expert in range(4)]
    assert assign(ids, of_speed(a=100.0, b=80.0), {}, {}) == assign(ids, of_speed(a=0.0, b=0.0), {}, {})


def test_what_one_takes_the_next_does_not_find() -> None:
    ids = [ReplicaId(0, 0), ReplicaId(1, 0), ReplicaId(0, 1), ReplicaId(1, 1)]
    assert assign(ids[:3], [A, B], {}, {"GPU": 0.5}) == {(0, 0): "a", (1, 0): "b", (0, 1): "b"}
    expected = {ids[0]: "b", ids[1]: "a"} | dict.fromkeys(ids[2:], "")
    assert assign(ids, [A, B], {ReplicaId(0, 9): "a"}, {"GPU": 1.0}) == expected
    assert assign(ids[:2], [A], {}, {}) == dict.fromkeys(ids[:2], "a"), "what needs nothing always fits"
    assert A.free == {"CPU": 4.0, "GPU": 1.0}, "a plan takes nothing"


def test_those_without_a_node_go_first_then_those_that_share_theirs() -> None:
    mine = {FIRST: "a", SECOND: "b", THIRD: "b", FOURTH: ""}
    placed = {**mine, ReplicaId(1, 0): "a", ReplicaId(2, 0): "a"}
    assert surplus(3, mine, placed) == [FOURTH, THIRD, FIRST]
    assert surplus(9, {FIRST: "a"}, placed) == [FIRST]
    assert surplus(0, mine, placed) == [] == surplus(-1, mine, placed)


@given(st.integers(1, 6), st.integers(0, 12))
def test_copies_of_an_expert_on_two_nodes_differ_by_one_at_most(nodes: int, count: int) -> None:
    names = [node(str(n)) for n in range(nodes)]
    placed: dict[ReplicaId, str] = {}
    for index in range(count):
        placed[ReplicaId(0, index)] = place(0, names, placed, {})
    for going in range(count):
        here = [list(placed.values()).count(n.node_id) for n in names]
        assert max(here) - min(here) <= 1, going
        del placed[surplus(1, placed, placed)[0]]


def test_a_new_replica_has_the_lowest_index_that_is_not_taken() -> None:
    assert unused(0, 2, [SECOND]) == [FIRST, THIRD]
    assert unused(0, 1, []) == [FIRST]
    assert unused(0, 0, [FIRST]) == [] == unused(0, -1, [FIRST])
