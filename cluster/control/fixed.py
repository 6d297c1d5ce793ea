"""The replicas of one-process mode: one of each expert, always ready. Nothing can be changed about them."""

import os
from typing import NoReturn

from actors.replica import ReplicaId
from actors.usage import HeadUsage
from cluster.control.errors import ReplicasFixed
from cluster.observe.view import Snapshot
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.scaling import ScalingPolicy


class FixedReplicas:
    """Stands in the place of Controller and Autoscaler: it answers the same questions and refuses every change."""

    policy: ScalingPolicy | None = None

    def __init__(self, experts: int) -> None:
        ids = [ReplicaId(expert, 0) for expert in range(experts)]
        members = [Member(r, State.READY, 0.0, pid=os.getpid(), served=True, loaded=True) for r in ids]
        self._snapshot = Snapshot(0, (1,) * experts, tuple(members), {}, (), restarts=(0,) * experts)

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def usage(self) -> HeadUsage:
        """The head always answers; it counts nothing of its replicas."""
        return HeadUsage("", {}, {}, (), ())

    def unserved(self) -> list[int]:
        return []

    def refuse(self, *change: object, **options: object) -> NoReturn:
        raise ReplicasFixed("with runtime=in_process all experts run in the server's process; serve with runtime=ray")

    scale = drain_node = set = refuse

    def start(self) -> None:
        """There is no thread."""

    stop = start
