"""The experts' actors on Ray, as the controller sees them: `actors.seams.ClusterOps`."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import ray

from actors.remote.actors import Members, pulses_in, stop_actors
from actors.remote.exits import memory_exits
from actors.remote.faults import OwnFaults
from actors.replica import Replica, ReplicaId
from actors.usage import HeadUsage
from actors.vitals import HostMemory, NodeInfo, Pulse, Vitals

_HEAD_SECONDS = 10.0  # for the head to route to others: it waits up to half of that for a warm-up call
_LOAD_SECONDS = 2.0  # ... and to say what its replicas do
_MEMORY_SECONDS = 0.1  # for a process to say how much memory its machine has left

# Which replica, its node or "", and nodes to avoid -> name and handle.
Start = Callable[[ReplicaId, str, Collection[str]], tuple[str, Any]]


class RayReplicas:
    """Handles of the experts' actors, the calls that watch them, and the members that the head routes to."""

    def __init__(self, head: Any, handles: Mapping[ReplicaId, tuple[str, Any]], start: Start, namespace: str) -> None:
        """`handles` holds the names and handles of actors that run already."""
        self._head, self._start, self._namespace = head, start, namespace
        self._faults = OwnFaults()
        self._handles = dict(handles)
        self._members = Members(0)
        self._epoch = -1  # of the engine that has the head
        self._watches: dict[Any, ReplicaId] = {}
        self._asked: dict[Any, ReplicaId] = {}
        self._nodes: dict[ReplicaId, str] = {}
        self._pids: dict[ReplicaId, tuple[str, int]] = {}  # as they were seen last, with their node
        self._memory: dict[str, HostMemory] = {}  # by node, as it was last seen

    def members(self, epoch: int) -> Members:
        """The members published last, for a head that begins with this epoch."""
        self._epoch = epoch
        return replace(self._members, epoch=epoch)

    def names(self) -> list[str]:
        """The names of all actors."""
        return [name for name, _ in self._handles.values()]

    def start(self, replica_id: ReplicaId, node_id: str, avoided: Collection[str]) -> None:
        """See `ClusterOps`."""
        self._handles[replica_id] = self._start(replica_id, node_id, avoided)

    def stop(self, replica_id: ReplicaId) -> None:
        """See `ClusterOps`."""
        name, _ = self._handles[replica_id]
        for calls in (self._asked, self._watches):
            for ref in [ref for ref, of in calls.items() if of == replica_id]:
                del calls[ref]
        stop_actors([name], self._namespace, timeout=1.0)  # if Ray is away and raises, it is to be stopped again
        del self._handles[replica_id]
        self._nodes.pop(replica_id, None)

    def ask(self, replica_ids: Collection[ReplicaId]) -> Vitals:
        """See `ClusterOps`."""
        for replica_id in set(replica_ids) - set(self._asked.values()):
            self._asked[self._handles[replica_id][1].pulse.remote()] = replica_id
        pulses, lost, away = pulses_in([(ref, self._asked.pop(ref)) for ref in _done(self._asked)])
        self._nodes.update({replica_id: pulse.node_id for replica_id, pulse in pulses.items()})
        alive = {Replica(*replica_id, pulse.incarnation) for replica_id, pulse in pulses.items()}
        self._watch(r for r in self._members.replicas if r in alive)  # a watch may break while its process lives
        self._pids |= {replica_id: (pulse.node_id, pulse.pid) for replica_id, pulse in pulses.items()}
        exits = memory_exits() if lost or away else {}
        lost, away = ({k: exits.get(self._pids.get(k, ("", 0)), why) for k, why in d.items()} for d in (lost, away))
        return Vitals(pulses, lost, away)

    def ended(self) -> frozenset[ReplicaId]:
        """See `ClusterOps`."""
        return frozenset(self._watches.pop(ref) for ref in _done(self._watches))

    def publish(self, incarnations: Mapping[ReplicaId, str]) -> frozenset[ReplicaId] | None:
        """See `ClusterOps`."""
        members = self._next(incarnations)
        try:
            cold = frozenset(ray.get(self._head.update.remote(members), timeout=_HEAD_SECONDS))
        except ray.exceptions.RayError as error:  # a head that comes back gets those that it had and are still wanted
            self._faults.note("the head was given its replicas", error)
            known = set(self._members.replicas)
            self._members = replace(members, replicas=[r for r in members.replicas if r in known])
            return None
        self._members = replace(members, replicas=[r for r in members.replicas if r.id not in cold])
        self._watch(self._members.replicas)
        return cold

    def adopt(self, pulses: Mapping[ReplicaId, Pulse]) -> None:
        """These are ready; the head that has none yet is given them when it is begun."""
        self._nodes = {replica_id: pulse.node_id for replica_id, pulse in pulses.items()}
        self._pids = {replica_id: (pulse.node_id, pulse.pid) for replica_id, pulse in pulses.items()}
        self._members = self._next({replica_id: pulse.incarnation for replica_id, pulse in pulses.items()})
        self._watch(self._members.replicas)

    def _watch(self, replicas: Iterable[Replica]) -> None:
        watched = set(self._watches.values())
        for replica in replicas:
            if replica.id not in watched:
                self._watches[replica.endpoint.watch.remote()] = replica.id

    def _next(self, incarnations: Mapping[ReplicaId, str]) -> Members:
        replicas = [Replica(*r, incarnation, self._handles[r][1]) for r, incarnation in incarnations.items()]
        return Members(self._members.revision + 1, replicas, self._epoch)

    def load(self) -> HeadUsage | None:
        """See `ClusterOps`."""
        try:
            load: HeadUsage = ray.get(self._head.load.remote(), timeout=_LOAD_SECONDS)
        except ray.exceptions.RayError as error:
            self._faults.note("the head was asked what its replicas do", error)
            return None
        return load

    def nodes(self) -> list[NodeInfo]:
        """See `ClusterOps`."""
        memory = self._look_at_memory()
        return [_with(node, memory[node.node_id]) if node.node_id in memory else node for node in machines()]

    def _look_at_memory(self) -> Mapping[str, HostMemory]:
        """Ask one process on each node, any, as Ray does not know; where none answers at once, all counts as before."""
        there = list(self._nodes.items())  # another thread may start or stop some
        somebody = {node_id: replica_id for replica_id, node_id in random.sample(there, len(there))}
        handles = [entry[1] for replica_id in somebody.values() if (entry := self._handles.get(replica_id))]
        refs = [handle.memory.remote() for handle in (self._head, *handles)]
        done, _ = ray.wait(refs, num_returns=len(refs), timeout=_MEMORY_SECONDS)
        for ref in done:
            try:
                found: HostMemory = ray.get(ref)
            except ray.exceptions.RayError as error:  # it ended: another is asked the next time
                self._faults.note("a process was asked for its machine's memory", error)
                continue
            self._memory = {**self._memory, found.node_id: found}
        return self._memory


def machines() -> list[NodeInfo]:
    """The cluster's, as Ray knows them: all memory is what Ray may reserve, and what is in use is not known."""
    state: Any = ray._private.state
    free: dict[str, dict[str, float]] = state.available_resources_per_node()
    nodes: list[dict[str, Any]] = state.nodes()
    return [
        NodeInfo(
            node["NodeID"],
            node["NodeManagerAddress"],
            bool(node["Alive"]),
            free.get(node["NodeID"], {}),
            int(node["Resources"].get("GPU", 0)),
            int(node["Resources"].get("memory", 0)),
        )
        for node in nodes
    ]


def _with(node: NodeInfo, memory: HostMemory) -> NodeInfo:
    return replace(node, memory_total=memory.total, memory_used=memory.used if node.alive else 0)


def _done(calls: Mapping[Any, ReplicaId]) -> list[Any]:
    return list(ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]) if calls else []
