"""The replicas and nodes at one moment, as the controller tells them to whoever shows them."""

from collections.abc import Mapping
from dataclasses import dataclass

from actors.vitals import NodeInfo
from cluster.policy.replicas.lifecycle import Member


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is."""

    revision: int
    desired: tuple[int, ...]
    members: tuple[Member, ...]
    notes: Mapping[int, str]
    nodes: tuple[NodeInfo, ...]
    draining: frozenset[str] = frozenset()  # nodes
    restarts: tuple[int, ...] = ()  # of each expert's processes
