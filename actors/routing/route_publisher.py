"""What the head was told to route to, and what a restarted head is given. Used by one thread but for `for_epoch`."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from actors.replica import Replica, ReplicaId
from actors.routing.route_table import RouteUpdate


class RoutePublisher:
    """Makes the updates of one engine's head, each with a higher revision than the one before.

    `update` is what the head routes to as far as is known here. A head that restarts begins with it.
    """

    def __init__(self) -> None:
        self.update = RouteUpdate(0)
        self._epoch = -1  # of the engine that has the head

    def for_epoch(self, epoch: int) -> RouteUpdate:
        """The update for a head that an engine begins with this epoch."""
        self._epoch = epoch
        return replace(self.update, epoch=epoch)

    def next(self, replicas: Sequence[Replica]) -> RouteUpdate:
        return RouteUpdate(self.update.revision + 1, replicas, self._epoch)

    def joined(self, update: RouteUpdate, cold: Collection[ReplicaId]) -> None:
        """The head has carried it out, but for replicas whose warm-up call failed."""
        self.update = replace(update, replicas=[r for r in update.replicas if r.id not in cold])

    def unanswered(self, update: RouteUpdate) -> None:
        """The head did not answer. If it restarts it gets the replicas that it had and that are still wanted: the new
        ones have not answered a warm-up call.
        """
        known = set(self.update.replicas)
        self.update = replace(update, replicas=[r for r in update.replicas if r in known])
