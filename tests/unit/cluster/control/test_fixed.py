"""One-process mode's replicas answer as a controller does, and refuse changes."""

from collections.abc import Callable

import pytest

from cluster.control.errors import ReplicasFixed
from cluster.control.fixed import FixedReplicas
from cluster.observe.view import ClusterView
from cluster.policy.replicas.scaling import ScalingPolicy


def test_one_replica_of_each_expert_is_ready_and_the_head_answers() -> None:
    view = ClusterView(3.0, FixedReplicas(4).snapshot())
    assert (view.ready, view.replicas.desired) == ([1] * 4, (1,) * 4)
    assert [member.id for member in view.replicas.members] == [(e, 0) for e in range(4)]
    assert (
        FixedReplicas(4).usage() is not None and FixedReplicas(4).unserved() == [] and FixedReplicas(4).policy is None
    )


def test_every_change_is_refused_with_what_to_do() -> None:
    fixed = FixedReplicas(2)
    changes: list[Callable[[], object]] = [
        lambda: fixed.scale({0: 2}),
        lambda: fixed.drain_node("n0", 1.0),
        lambda: fixed.set(ScalingPolicy(True, 1, 2, 4, 0.7, 0.2, 1.0)),
    ]
    for change in changes:
        with pytest.raises(ReplicasFixed, match="serve with runtime=ray"):
            change()
