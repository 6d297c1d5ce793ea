"""Which replica starts, and which is retired."""

from actors.replica import ReplicaId
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.reconcile import Change, reconcile


def member(expert: int, index: int, node_id: str = "n0", state: State = State.READY) -> Member:
    return Member(ReplicaId(expert, index), state, 0.0, node_id)


def start(expert: int, index: int) -> Change:
    return Change(ReplicaId(expert, index), "", True)


def retire(expert: int, index: int, node_id: str = "n0") -> Change:
    return Change(ReplicaId(expert, index), node_id, False)


def test_the_lowest_free_index_starts() -> None:
    there = [member(0, 0), member(0, 2)]
    assert reconcile({0: 4}, there, ()) == [start(0, 1), start(0, 3)]


def test_a_draining_replica_keeps_its_index_but_counts_no_more() -> None:
    there = [member(0, 0), member(0, 1, state=State.RETIRING)]
    assert reconcile({0: 1}, there, ()) == []
    assert reconcile({0: 2}, there, ()) == [start(0, 2)]


def test_the_last_replica_of_the_fullest_node_is_retired() -> None:
    there = [member(0, 0, "n0"), member(0, 1, "n1"), member(0, 2, "n1")]
    assert reconcile({0: 2}, there, ()) == [retire(0, 2, "n1")]
    assert reconcile({0: 1}, there, ()) == [retire(0, 2, "n1"), retire(0, 1, "n1")]


def test_a_replica_that_is_not_ready_is_retired_before_a_ready_one() -> None:
    there = [member(0, 0, state=State.UNREACHABLE), member(0, 1, "n1"), member(0, 2, "n1")]
    assert reconcile({0: 2}, there, ()) == [retire(0, 0)]


def test_experts_do_not_all_leave_the_same_node() -> None:
    there = [member(expert, index, f"n{index}") for expert in range(8) for index in range(2)]
    nodes = [change.node_id for change in reconcile(dict.fromkeys(range(8), 1), there, ())]
    assert sorted(nodes) == ["n0"] * 4 + ["n1"] * 4


def test_a_replica_on_an_avoided_node_is_retired_only_after_its_successor_is_ready() -> None:
    old = member(0, 0)
    assert reconcile({0: 1}, [old], {"n0"}) == [start(0, 1)]
    for state in (State.STARTING, State.UNREACHABLE):
        assert reconcile({0: 1}, [old, member(0, 1, "n1", state)], {"n0"}) == [], state
    assert reconcile({0: 1}, [old, member(0, 1, "n1")], {"n0"}) == [retire(0, 0)]


def test_an_avoided_node_is_left_one_by_one_as_successors_are_ready() -> None:
    there = [member(0, 0), member(0, 1), member(0, 2, "n1"), member(0, 3, "n1", State.STARTING)]
    assert reconcile({0: 2}, there, {"n0"}) == [retire(0, 0)]


def test_a_node_that_is_avoided_no_longer_leaves_one_too_many() -> None:
    there = [member(0, 0), member(0, 1, "n1")]
    assert reconcile({0: 1}, there, ()) == [retire(0, 1, "n1")]
