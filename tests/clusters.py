"""A cluster that computes nothing: what the controller's tests drive instead of Ray."""

import itertools
import threading
from collections.abc import Callable, Collection, Mapping

from actors.replica import ReplicaId
from actors.usage import HeadUsage, ReplicaUsage
from actors.vitals import NodeInfo, Pulse, Vitals
from model.batch import LoadProgress
from tests.fakes import PATIENCE

Id = tuple[int, int]  # (expert, index): a ReplicaId as a test writes it


class FakeCluster:
    """A `ClusterOps`. Replicas load as soon as they have room, unless `held`; `cold` ones do not answer the head."""

    def __init__(self, *nodes: str) -> None:
        self.machines = [NodeInfo(name, "10.0.0.1", True, {"CPU": 4.0}) for name in nodes]
        self._changed = threading.Condition()
        self.processes: dict[Id, Pulse] = {}
        self.started: list[tuple[Id, str]] = []
        self.stopped: list[Id] = []
        self.published: list[Mapping[ReplicaId, str]] = []
        self.held: set[Id] = set()  # they find no node
        self.loading: set[Id] = set()
        self.errors: dict[Id, str] = {}
        self.cold: set[Id] = set()
        self.queued: dict[Id, int] = {}
        self.busy_seconds: dict[Id, float] = {}  # since the head began
        self.head_answers = True
        self._ended: set[Id] = set()
        self._lost: dict[Id, str] = {}
        self.crashing: set[Id] = set()  # they have another process whenever they are asked
        self.broken: dict[Id, str] = {}  # they are lost whenever they are asked, because of this
        self.away: dict[Id, str] = {}  # they cannot be asked, because of this
        self._names = itertools.count()

    # ---- the test's side ----

    def process(self, key: Id, node_id: str = "n0") -> Pulse:
        """A new process for a replica."""
        number = next(self._names)
        self.processes[key] = Pulse(f"p{number}", number, node_id, LoadProgress(1, 1, ready=True))
        return self.processes[key]

    def kill(self, key: Id) -> None:
        """Its process ends, and Ray starts another."""
        self._ended.add(key)
        self.process(key, self.processes[key].node_id)

    def cut_off(self, key: Id) -> None:
        """The call that watches its process breaks, as when the network fails."""
        self._ended.add(key)

    def lose(self, key: Id) -> None:
        """Its process ends for good."""
        self._ended.add(key)
        self._lost[key] = "its node is gone"
        del self.processes[key]

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Wait until something is published after which it holds."""
        with self._changed:
            return self._changed.wait_for(condition, PATIENCE)

    # ---- ClusterOps ----

    def start(self, key: Id, node_id: str, avoided: Collection[str]) -> None:
        self.started.append((key, node_id))
        free = [machine.node_id for machine in self.machines if machine.node_id not in avoided]
        if key not in self.held and (node_id or free):
            self.process(key, node_id or free[0])

    def stop(self, key: Id) -> None:
        self.stopped.append(key)
        self.processes.pop(key, None)
        self._lost.pop(key, None)

    def ask(self, keys: Collection[Id]) -> Vitals:
        for key in self.crashing & set(keys) & set(self.processes):
            self.process(key, self.processes[key].node_id)
        lost = {ReplicaId(*key): why for key, why in (self._lost | self.broken).items() if key in keys}
        away = {ReplicaId(*key): why for key, why in self.away.items() if key in keys and key not in lost}
        silent = lost | away
        pulses = {ReplicaId(*key): self._pulse(key) for key in keys if key in self.processes and key not in silent}
        return Vitals(pulses, lost, away)

    def _pulse(self, key: Id) -> Pulse:
        p = self.processes[key]
        ready = key not in self.loading | self.crashing and key not in self.errors
        return Pulse(p.incarnation, p.pid, p.node_id, LoadProgress(0, 1, ready, self.errors.get(key, "")))

    def ended(self) -> frozenset[ReplicaId]:
        ended, self._ended = self._ended, set()
        return frozenset(ReplicaId(*key) for key in ended)

    def publish(self, incarnations: Mapping[ReplicaId, str]) -> frozenset[ReplicaId] | None:
        before = self.published[-1] if self.published else {}
        new = {replica_id for replica_id, name in incarnations.items() if before.get(replica_id) != name}
        if not self.head_answers:
            return None
        cold = frozenset(replica_id for replica_id in new if replica_id in self.cold)
        with self._changed:
            self.published.append({key: name for key, name in incarnations.items() if key not in cold})
            self._changed.notify_all()
        return cold

    def usage(self) -> HeadUsage | None:
        loads = {ReplicaId(*key): ReplicaUsage(1, 1, seconds) for key, seconds in self.busy_seconds.items()}
        queued = {ReplicaId(*key): rows for key, rows in self.queued.items()}
        if not self.head_answers:
            return None
        return HeadUsage("head", loads, queued, [], [], node_id=self.machines[0].node_id)

    def nodes(self) -> list[NodeInfo]:
        return self.machines
