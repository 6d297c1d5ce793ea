"""The replicas that are wanted, and how the last attempts to have them ended."""

import math
from collections.abc import Mapping, Sequence

from actors.replica import ReplicaId
from cluster.policy.replicas.backoff import Backoff


class Desired:
    """Counts by expert, nodes to leave, and why starts have failed. `revision` counts the changes of the counts."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = tuple(counts)
        self.revision = 1
        self.avoided: Mapping[str, float] = {}  # nodes, and until when their replicas shall have moved away
        self._notes: dict[int, tuple[ReplicaId, str]] = {}  # by expert: the replica that it is about, and the note
        self._backoff = Backoff()  # by expert

    def scale(self, wanted: Mapping[int, int]) -> None:
        assert all(count >= 1 for count in wanted.values()), "an expert keeps a replica"
        self.counts = tuple(wanted.get(expert, count) for expert, count in enumerate(self.counts))
        self.revision += 1

    def drain(self, node_id: str, until: float) -> None:
        self.avoided = {**self.avoided, node_id: until}

    def undrain(self, node_id: str) -> None:
        self.avoided = {other: until for other, until in self.avoided.items() if other != node_id}

    def expire_drains(self, nodes: Mapping[ReplicaId, str], now: float) -> dict[str, list[ReplicaId]]:
        """A node that replicas have not left in time takes replicas again. Returns these nodes and replicas."""
        undrained: dict[str, list[ReplicaId]] = {}
        for node_id in [node_id for node_id, until in self.avoided.items() if now >= until]:
            left = [replica_id for replica_id, node in nodes.items() if node == node_id]
            if left:
                undrained[node_id] = left
                self.undrain(node_id)
            else:
                self.drain(node_id, math.inf)
        return undrained

    def failed(self, replica_id: ReplicaId, why: str, now: float) -> None:
        """The next attempt to start a replica of this expert has to wait."""
        self._notes[replica_id.expert] = replica_id, why
        self._backoff.failed(replica_id.expert, now)

    def joined(self, replica_id: ReplicaId) -> None:
        noted, _ = self._notes.get(replica_id.expert, (None, ""))
        if noted == replica_id:
            del self._notes[replica_id.expert]
        self._backoff.cleared(replica_id.expert)

    def begin_afresh(self, expert: int) -> None:
        self._backoff.cleared(expert)
        self._notes.pop(expert, None)

    def pauses(self, expert: int, now: float) -> bool:
        return self._backoff.pauses(expert, now)

    @property
    def notes(self) -> dict[int, str]:
        """By expert: why its last scaling was taken back."""
        return {expert: why for expert, (_, why) in self._notes.items()}
