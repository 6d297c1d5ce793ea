"""The replicas of one-process mode: one of each expert, always ready. Nothing can be changed about them."""

import os
from collections.abc import Mapping

from actors.replica import ReplicaId
from actors.usage import HeadUsage
from cluster.control.errors import ReplicasFixed
from cluster.observe.view import Snapshot
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.reconcile import Change
from cluster.policy.replicas.scaling import ScalingPolicy


class FixedReplicas:
    """Stands in the place of Controller and Autoscaler: it answers the same questions and refuses every change."""

    policy: ScalingPolicy | None = None

    def __init__(self, experts: int) -> None:
        members = [
            Member(ReplicaId(expert, 0), State.READY, 0.0, pid=os.getpid(), served=True, loaded=True)
            for expert in range(experts)
        ]
        self._snapshot = Snapshot(0, (1,) * experts, tuple(members), {}, (), restarts=(0,) * experts)

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def load(self) -> HeadUsage | None:
        """The head always answers; it counts nothing of its replicas."""
        return HeadUsage("", {}, {}, (), ())

    def unserved(self) -> list[int]:
        return []

    def scale(
        self,
        wanted: Mapping[int, int],
        validate_only: bool = False,
        expected_revision: int | None = None,
        afresh: bool = True,
    ) -> tuple[int, list[Change]]:
        """Raises ReplicasFixed."""
        raise ReplicasFixed

    def drain_node(self, node_id: str, seconds: float, cancel: bool = False) -> None:
        """Raises ReplicasFixed."""
        raise ReplicasFixed

    def set(self, policy: ScalingPolicy) -> None:
        """Raises ReplicasFixed."""
        raise ReplicasFixed

    def start(self) -> None:
        """There is no thread."""

    def stop(self, timeout: float = 15.0) -> None:
        """There is no thread."""
