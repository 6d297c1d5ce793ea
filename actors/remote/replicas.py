"""The experts' actors on Ray, as the controller sees them: `actors.seams.ClusterOps`."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from actors.remote.actors import finished, pulses_in, stop_actors
from actors.remote.exits import memory_exits
from actors.remote.faults import OwnFaults
from actors.remote.machines import Machines
from actors.remote.speeds import Speeds
from actors.replica import Replica, ReplicaId
from actors.routing.route_table import RoutePublisher, RouteUpdate
from actors.usage import HeadUsage
from actors.vitals import NodeInfo, Pulse, Vitals

_HEAD_SECONDS = 10.0  # for the head to route to others: it waits up to half of that for a warm-up call
_USAGE_SECONDS = 2.0  # ... and to say what its replicas do

# replica, node or "", nodes to avoid -> name, handle
Start = Callable[[ReplicaId, str, Collection[str]], tuple[str, Any]]


class RayReplicas:
    def __init__(
        self,
        head: Any,
        handles: Mapping[ReplicaId, tuple[str, Any]],
        start: Start,
        namespace: str,
        speeds: Speeds | None = None,
    ) -> None:
        """`handles` holds the names and handles of actors that run already."""
        self._head, self._start, self._namespace = head, start, namespace
        self._faults = OwnFaults()
        self._handles = dict(handles)
        self._routes = RoutePublisher()
        self._watches: dict[Any, ReplicaId] = {}
        self._asked: dict[Any, ReplicaId] = {}
        self._processes: dict[ReplicaId, Pulse] = {}  # as they were seen last
        self._machines = Machines(speeds)

    def routes(self, epoch: int) -> RouteUpdate:
        """The replicas for a head that begins with this epoch."""
        return self._routes.for_epoch(epoch)

    def names(self) -> list[str]:
        return [name for name, _ in self._handles.values()]

    def start(self, replica_id: ReplicaId, node_id: str, avoided: Collection[str]) -> None:
        self._handles[replica_id] = self._start(replica_id, node_id, avoided)

    def stop(self, replica_id: ReplicaId) -> None:
        name, _ = self._handles[replica_id]
        for calls in (self._asked, self._watches):
            for ref in [ref for ref, of in calls.items() if of == replica_id]:
                del calls[ref]
        stop_actors([name], self._namespace, timeout=1.0)  # if Ray is away and raises, it is to be stopped again
        del self._handles[replica_id]
        self._processes.pop(replica_id, None)

    def ask(self, replica_ids: Collection[ReplicaId]) -> Vitals:
        for replica_id in set(replica_ids) - set(self._asked.values()):
            self._asked[self._handles[replica_id][1].pulse.remote()] = replica_id
        pulses, lost, away = pulses_in([(ref, self._asked.pop(ref)) for ref in finished(self._asked)])
        alive = {Replica(*replica_id, pulse.incarnation) for replica_id, pulse in pulses.items()}
        self._watch(r for r in self._routes.update.replicas if r in alive)  # a watch may break while its process lives
        self._processes |= pulses
        if lost or away:
            exits, at = memory_exits(), {r: (pulse.node_id, pulse.pid) for r, pulse in self._processes.items()}
            lost, away = ({r: exits.get(at.get(r, ("", 0)), why) for r, why in d.items()} for d in (lost, away))
        return Vitals(pulses, lost, away)

    def ended(self) -> frozenset[ReplicaId]:
        return frozenset(self._watches.pop(ref) for ref in finished(self._watches))

    def publish(self, incarnations: Mapping[ReplicaId, str]) -> frozenset[ReplicaId] | None:
        update = self._routes.next(self._replicas(incarnations))
        call = self._head.update.remote(update)
        cold: list[ReplicaId] | None = self._faults.answer(call, "the head was given its replicas", _HEAD_SECONDS)
        self._routes.told(update, cold)
        if cold is None:  # it did not answer, or has begun another epoch meanwhile: it is to be told again
            return None
        self._watch(self._routes.update.replicas)
        return frozenset(cold)

    def adopt(self, pulses: Mapping[ReplicaId, Pulse]) -> None:
        """These are ready; the head that has none yet is given them when it is begun."""
        self._processes |= pulses
        replicas = self._replicas({replica_id: pulse.incarnation for replica_id, pulse in pulses.items()})
        self._routes.told(self._routes.next(replicas), cold=())
        self._watch(replicas)

    def _watch(self, replicas: Iterable[Replica]) -> None:
        watched = set(self._watches.values())
        for replica in replicas:
            if replica.id not in watched:
                self._watches[replica.endpoint.watch.remote()] = replica.id

    def _replicas(self, incarnations: Mapping[ReplicaId, str]) -> list[Replica]:
        return [
            Replica(*replica_id, incarnation, self._handles[replica_id][1], self._processes[replica_id].address)
            for replica_id, incarnation in incarnations.items()
        ]

    def usage(self) -> HeadUsage | None:
        call, doing = self._head.usage.remote(), "the head was asked what its replicas do"
        usage: HeadUsage | None = self._faults.answer(call, doing, _USAGE_SECONDS)
        return usage

    def nodes(self) -> list[NodeInfo]:
        there = list(self._processes.items())  # another thread may start or stop some
        random.shuffle(there)  # any of a node's processes: the one asked last may hang
        actors = {pulse.node_id: entry[1] for replica_id, pulse in there if (entry := self._handles.get(replica_id))}
        return self._machines.look((self._head, *actors.values()))
