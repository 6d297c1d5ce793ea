"""What is wanted, and what failed attempts leave behind."""

import pytest

from actors.replica import ReplicaId
from cluster.policy.replicas.desired import Desired

A, B, C = ReplicaId(0, 0), ReplicaId(0, 1), ReplicaId(1, 0)


def test_a_scaling_changes_the_counts_of_its_experts_and_the_revision() -> None:
    desired = Desired([1, 2])
    desired.scale({1: 3})
    assert (desired.counts, desired.revision) == ((1, 3), 2)
    with pytest.raises(AssertionError, match="keeps a replica"):
        desired.scale({0: 0})


def test_a_failed_start_pauses_its_expert_alone_and_ever_longer() -> None:
    desired = Desired([1, 1])
    desired.failed(A, "why", 0.0)
    assert desired.pauses(0, 4.9) and not desired.pauses(0, 5.0) and not desired.pauses(1, 0.0)
    desired.failed(A, "why", 5.0)
    assert desired.pauses(0, 14.9) and not desired.pauses(0, 15.0)
    desired.begin_afresh(0)
    assert not desired.pauses(0, 5.0) and desired.notes == {}


def test_a_note_stays_until_the_replica_that_it_is_about_joins() -> None:
    desired = Desired([2, 1])
    desired.failed(B, "no node", 0.0)
    desired.joined(A)
    assert desired.notes == {0: "no node"} and not desired.pauses(0, 0.0), "another could be started"
    desired.joined(B)
    assert desired.notes == {}


def test_an_avoided_node_takes_replicas_again_only_if_they_could_not_leave_it_in_time() -> None:
    desired = Desired([1, 1])
    desired.drain("left", 10.0)
    desired.drain("stuck", 10.0)
    desired.drain("later", 20.0)
    nodes = {A: "stuck", C: "later"}
    assert desired.expire_drains(nodes, 9.9) == {}
    assert desired.expire_drains(nodes, 10.0) == {"stuck": [A]}
    assert set(desired.avoided) == {"left", "later"}
    assert desired.expire_drains({A: "left"}, 1e9) == {}, "what has been left is avoided until somebody says otherwise"
