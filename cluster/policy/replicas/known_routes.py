"""Which replicas the head routes to, and what to tell it next."""

from collections.abc import Collection, Mapping

from actors.replica import ReplicaId
from cluster.policy.replicas.backoff import Backoff


class KnownRoutes:
    """The incarnations that the head routes to, as far as is known. A replica whose warm-up call failed is *cold*: if
    its expert has another it is left out until its back-off ends, so that other changes need not wait for it.
    """

    def __init__(self, known: Mapping[ReplicaId, str]) -> None:
        """`known` is what the head routes to already."""
        self._known: dict[ReplicaId, str] | None = dict(known)  # None: the head did not answer; it has the old or new
        self._cold = Backoff()

    def due(self, routed: Mapping[ReplicaId, str], now: float) -> dict[ReplicaId, str] | None:
        """The incarnations to tell the head so that it routes to these; None if there is nothing new."""
        self._cold.keep(routed.keys())  # a replica that left the table takes its back-off with it
        paused = {replica_id for replica_id in routed if self._cold.pauses(replica_id, now)}
        served = {replica_id.expert for replica_id in routed.keys() - paused}
        wanted = {r: incarnation for r, incarnation in routed.items() if r not in paused or r.expert not in served}
        return None if wanted == self._known else wanted

    def told(self, wanted: Mapping[ReplicaId, str], cold: Collection[ReplicaId] | None, now: float) -> list[ReplicaId]:
        """The head answered which are cold, or nothing (None). Returns the replicas that it routes to now."""
        if cold is None:
            self._known = None
            return []
        self._known = {r: incarnation for r, incarnation in wanted.items() if r not in cold}
        for replica_id in cold:
            self._cold.failed(replica_id, now)
        for replica_id in self._known:
            self._cold.cleared(replica_id)
        return list(self._known)

    def may_reach(self, replica_id: ReplicaId) -> bool:
        return self._known is None or replica_id in self._known
