"""The controller's rounds, on a cluster that computes nothing and a clock that only tests move."""

import dataclasses
from collections.abc import Mapping

import pytest

from actors.replica import ReplicaId
from cluster.control.controller import Controller
from cluster.control.errors import HeadNode, NoSuchNode, RevisionMoved
from cluster.policy.replicas.lifecycle import ReplicaOptions, State
from cluster.policy.replicas.membership import Membership
from tests.clusters import FakeCluster


class Rig:
    """A controller of experts with these numbers of running replicas."""

    def __init__(
        self, *counts: int, nodes: tuple[str, ...] = ("n0",), needs: Mapping[str, float] | None = None
    ) -> None:
        self.cluster, self.now = FakeCluster(*nodes), 100.0
        options = ReplicaOptions(placement_timeout=60.0, start_timeout=200.0, retire_timeout=30.0, needs=needs or {})
        membership = Membership(counts, options)
        ids = [ReplicaId(expert, index) for expert, count in enumerate(counts) for index in range(count)]
        membership.adopt({replica_id: self.cluster.process(replica_id) for replica_id in ids}, self.now)
        self.cluster.published.append(membership.routed())
        self.controller = Controller(self.cluster, membership, lambda: self.now)

    def tick(self, times: int = 1, seconds: float = 0.1) -> bool:
        busy = False
        for _ in range(times):
            self.now += seconds
            busy = self.controller.tick()
        return busy

    def states(self) -> dict[tuple[int, int], State]:
        return {m.id: m.state for m in self.controller.snapshot().members}

    @property
    def routed(self) -> set[tuple[int, int]]:
        return set(self.cluster.published[-1])


def test_with_nothing_to_do_nothing_is_done() -> None:
    rig = Rig(1, 1)
    assert not rig.tick(10)
    assert (rig.cluster.started, rig.cluster.stopped, len(rig.cluster.published)) == ([], [], 1)


def test_a_replica_joins_once_its_weights_are_there_and_it_has_answered_the_head() -> None:
    rig = Rig(1, 1)
    rig.cluster.loading, rig.cluster.cold = {(1, 1)}, {(1, 1)}
    revision, changes = rig.controller.scale({1: 2})
    assert revision == 2 and [(c.id, c.node_id, c.start) for c in changes] == [((1, 1), "n0", True)]
    assert rig.tick(5) and rig.states()[1, 1] is State.STARTING and len(rig.cluster.published) == 1
    rig.cluster.loading.clear()
    assert rig.tick(2) and rig.states()[1, 1] is State.STARTING, "its warm-up call failed"
    assert rig.routed == {(0, 0), (1, 0)}
    rig.cluster.cold.clear()
    assert not rig.tick(seconds=5.0) and rig.states()[1, 1] is State.READY
    assert rig.routed == {(0, 0), (1, 0), (1, 1)} and rig.cluster.started == [((1, 1), "n0")]


def test_one_that_goes_is_first_routed_to_no_more_and_ends_when_it_has_nothing_left() -> None:
    rig = Rig(2)
    rig.cluster.queued = {(0, 1): 5}
    rig.controller.scale({0: 1})
    assert rig.tick(20) and rig.routed == {(0, 0)} and rig.cluster.stopped == []
    rig.cluster.queued.clear()
    assert not rig.tick(1) and rig.cluster.stopped == [(0, 1)] and rig.states() == {(0, 0): State.READY}


def test_one_that_does_not_drain_ends_nevertheless() -> None:
    rig = Rig(2)
    rig.cluster.queued = {(0, 1): 5}
    rig.controller.scale({0: 1})
    rig.tick(31, seconds=1.0)
    assert rig.cluster.stopped == []
    rig.tick(1, seconds=1.0)
    assert rig.cluster.stopped == [(0, 1)]


def test_one_that_is_lost_for_good_is_started_anew() -> None:
    rig = Rig(2)
    rig.cluster.lose((0, 0))
    rig.tick(2)
    assert rig.cluster.stopped == [(0, 0)] and rig.cluster.started == [((0, 0), "n0")]
    assert not rig.tick(2) and rig.routed == {(0, 0), (0, 1)}


def test_one_that_is_lost_with_its_node_is_not_started_there_again() -> None:
    rig = Rig(2, nodes=("n0", "n1"))
    rig.controller.snapshot()  # the nodes are looked at
    rig.cluster.machines[0] = dataclasses.replace(rig.cluster.machines[0], alive=False)
    rig.cluster.lose((0, 0))
    rig.tick(2)
    assert rig.cluster.started == [((0, 0), "n1")]


def test_a_replica_that_finds_no_node_in_time_is_taken_back_with_the_reason() -> None:
    rig = Rig(1, needs={"CPU": 9.0})
    rig.cluster.held = {(0, 1)}
    _, changes = rig.controller.scale({0: 2})
    assert changes[0].node_id == "", "no node has nine CPUs"
    rig.tick(61, seconds=1.0)
    assert rig.states()[0, 1] is State.STARTING
    rig.tick(2, seconds=1.0)
    snapshot = rig.controller.snapshot()
    assert snapshot.desired == (1,) and rig.cluster.stopped == [(0, 1)]
    assert "no node took it within 60 s (it needs: CPU 9" in snapshot.notes[0]
    assert not rig.tick(100, seconds=1.0) and len(rig.cluster.started) == 1


def test_a_change_can_be_tried_and_bound_to_a_revision() -> None:
    rig = Rig(1)
    revision, changes = rig.controller.scale({0: 3}, validate_only=True)
    assert revision == 1 and len(changes) == 2
    assert not rig.tick(3) and rig.cluster.started == []
    with pytest.raises(RevisionMoved, match="revision 1, not 7"):
        rig.controller.scale({0: 3}, expected_revision=7)
    assert rig.controller.scale({0: 3}, expected_revision=1)[0] == 2


def test_new_replicas_are_spread_over_the_nodes() -> None:
    rig = Rig(1, 1, nodes=("n0", "n1", "n2"), needs={"CPU": 1.0})
    _, changes = rig.controller.scale({0: 3, 1: 2})
    assert [c.node_id for c in changes] == ["n1", "n2", "n1"]
    rig.tick(3)
    assert dict(rig.cluster.started) == {(0, 1): "n1", (0, 2): "n2", (1, 1): "n1"}


def test_a_node_is_drained_without_an_expert_going_short() -> None:
    rig = Rig(1, 1, nodes=("head", "n0", "n2"))
    rig.controller.drain_node("n0", 60.0)
    rig.tick()
    assert dict(rig.cluster.started) == {(0, 1): "head", (1, 1): "n2"} and rig.routed >= {(0, 0), (1, 0)}
    assert not rig.tick(10)
    assert rig.states() == {(0, 1): State.READY, (1, 1): State.READY} and rig.routed == {(0, 1), (1, 1)}
    assert rig.controller.snapshot().draining == {"n0"}, "none begins there"
    assert not rig.tick(10, seconds=10.0) and rig.controller.snapshot().draining == {"n0"}
    assert rig.controller.drain_node("n0", 1.0, cancel=True)
    assert rig.controller.snapshot().draining == set()
    assert not rig.controller.drain_node("n0", 1.0, cancel=True), "there is nothing to cancel"


def test_a_drain_that_finds_no_other_node_ends_with_its_deadline() -> None:
    rig = Rig(1, nodes=("head", "n0"), needs={"CPU": 9.0})
    rig.cluster.held = {(0, 1)}
    rig.controller.drain_node("n0", 30.0)
    rig.tick(29, seconds=1.0)
    assert rig.controller.snapshot().draining == {"n0"} and rig.routed == {(0, 0)}
    rig.tick(40, seconds=1.0)
    assert rig.controller.snapshot().draining == set()
    assert not rig.tick(10) and rig.states() == {(0, 0): State.READY}


def test_neither_an_unknown_node_nor_the_heads_is_drained() -> None:
    rig = Rig(1, nodes=("head", "n0"))
    with pytest.raises(NoSuchNode, match="no node 'n9'"):
        rig.controller.drain_node("n9", 1.0)
    with pytest.raises(HeadNode, match="runs on this node"):
        rig.controller.drain_node("head", 1.0)
    rig.cluster.head_answers = False
    with pytest.raises(HeadNode, match="does not answer"):
        rig.controller.drain_node("n0", 1.0)
    rig.controller.drain_node("n0", 1.0, cancel=True)
