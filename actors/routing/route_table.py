"""The head's replicas: how they join and leave, which update counts, and what a restarted head is given."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from actors.replica import Replica, ReplicaId
from actors.routing.replicas import Replicas
from actors.transport.seam import ExpertCall, ExpertTransport

log = logging.getLogger("eightwinds.actors")

WARM_SECONDS = 5.0  # for a new replica to answer its first call


@dataclass(frozen=True, slots=True)
class RouteUpdate:
    """The replicas to route to, each with its actor's handle as endpoint. Of two updates that cross on their way the
    one with the higher epoch counts, then the one with the higher revision.
    """

    revision: int
    replicas: Sequence[Replica] = ()
    epoch: int = -1

    @property
    def order(self) -> tuple[int, int]:
        return self.epoch, self.revision


class RouteTable:
    """Changes the table that the router chooses from, in any thread.

    A replica that is new joins once it has answered a warm-up call, so that no step is the first to wait for its
    connection. The call goes through a transport of its own, because the router's belongs to the thread that routes.
    """

    def __init__(
        self,
        replicas: Replicas,
        transport: Callable[[], ExpertTransport],
        expert_count: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replicas, self._transport, self._expert_count, self._clock = replicas, transport, expert_count, clock
        self._order = (-1, -1)
        self._lock = threading.Lock()

    def adopt(self, update: RouteUpdate) -> None:
        """Route to these at once: for a head that has no replicas yet, or a new engine's."""
        with closing(self._transport()) as transport:
            self._swap(update, [transport.connect(replica) for replica in update.replicas])

    def update(self, update: RouteUpdate, rows_RD: torch.Tensor) -> list[ReplicaId] | None:
        """Route to these from the next choice on, and to no others from now on. Warm-up calls have the rows `rows_RD`.
        Returns the replicas that are left out because their warm-up failed, or None if a later update counts.
        """
        with closing(self._transport()) as transport:
            wanted = [transport.connect(replica) for replica in update.replicas]
            known = set(itertools.chain(*self._replicas.table))
            if known:
                self._swap(update, [replica for replica in wanted if replica in known])
            cold = self._warm_up(transport, [replica for replica in wanted if replica not in known], rows_RD)
        counts = self._swap(update, [replica for replica in wanted if replica not in cold])
        return [replica.id for replica in cold] if counts else None

    def _warm_up(
        self, transport: ExpertTransport, replicas: Sequence[Replica], rows_RD: torch.Tensor
    ) -> frozenset[Replica]:
        cold = dict(enumerate(replicas))
        transport.submit([ExpertCall(call_id, 0, replica, rows_RD) for call_id, replica in cold.items()])
        waiting, end = set(cold), self._clock() + WARM_SECONDS
        while waiting and (left := end - self._clock()) > 0:
            for reply in transport.poll(left, waiting):
                waiting.discard(reply.call_id)
                if reply.rows_RD is not None:
                    del cold[reply.call_id]
                else:
                    log.warning("%s failed its warm-up call: %s", cold[reply.call_id], reply.error)
        return frozenset(cold.values())

    def _swap(self, update: RouteUpdate, replicas: Iterable[Replica]) -> bool:
        inorder = sorted(replicas, key=lambda r: r.id)
        table = tuple(tuple(r for r in inorder if r.expert == expert) for expert in range(self._expert_count))
        with self._lock:
            if update.order < self._order:
                return False
            self._order, self._replicas.table = update.order, table
            return True


class RoutePublisher:
    """Makes the updates of one engine's head. `update` is what the head routes to as far as is known here; a head that
    restarts begins with it. Used by one thread but for `for_epoch`.
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

    def told(self, update: RouteUpdate, cold: Collection[ReplicaId] | None) -> None:
        """The head has carried it out but for `cold` replicas, whose warm-up call failed; None: it did not answer. If
        it restarts then, it gets the replicas that it had and that are still wanted: new ones were not warmed up.
        """
        known = self.update.replicas
        routed = [r for r in update.replicas if (r in known if cold is None else r.id not in cold)]
        self.update = replace(update, replicas=routed)
