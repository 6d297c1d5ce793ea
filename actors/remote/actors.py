"""Ray, applied: the plain classes of this package as detached, named actors, and the handles to them.

Three concurrency groups: `work` computes, `control` answers while work waits, `watch` holds a call that ends with the
process. Nothing is retried by Ray (`max_task_retries=0`): the router sends an expert's call again, the engine a head's.
"""

import contextlib
import dataclasses
import logging
import os
import pickle
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy, NotIn

from actors.expert import Expert
from actors.head import Head
from actors.remote.faults import OwnFaults
from actors.replica import Replica, ReplicaId, Table
from actors.routing.deadlines import Patience
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.routing.usage_counter import UsageCounter
from actors.specs import ActorOptions, ActorReport, ActorSpec, RouterOptions
from actors.transport.object_refs import RayTransport
from actors.transport.rows import Message
from actors.transport.seam import ExpertCall, encode_call
from actors.usage import HeadUsage
from actors.vitals import HostMemory, Pulse
from model.batch import HeadInfo
from model.device.failure import lost_device
from model.device.host_link import host_link

log = logging.getLogger("eightwinds.actors")

_GROUPS = {"work": 1, "control": 2, "watch": 1}
_PROBE_SECONDS = 10.0
_WARM_SECONDS = 5.0
_NODE_LABEL = "ray.io/node-id"

K = TypeVar("K")


@dataclasses.dataclass(frozen=True, slots=True)
class Members:
    """The replicas that the head routes to, each with its actor's handle as endpoint. Of two that cross on their way
    the one with the higher revision counts; of two engines', those of the engine with the higher epoch.
    """

    revision: int
    replicas: Sequence[Replica] = ()
    epoch: int = -1

    @property
    def order(self) -> tuple[int, int]:
        """What is higher counts."""
        return self.epoch, self.revision


class ExpertActor:
    """An `Expert`, its methods in concurrency groups."""

    def __init__(self, spec: ActorSpec) -> None:
        self._expert = Expert(spec)

    @ray.method(concurrency_group="work")
    def forward(self, message: Message) -> Message:
        """See `Expert.forward`."""
        with _ending_without_device():
            return self._expert.forward(message)

    @ray.method(concurrency_group="control")
    def pulse(self) -> Pulse:
        """Which process this is, and how far its weights are."""
        return _pulse(self._expert)

    @ray.method(concurrency_group="control")
    def memory(self) -> HostMemory:
        """Of this machine."""
        return _host_memory()

    @ray.method(concurrency_group="watch")
    def watch(self) -> None:
        """Never return: the call ends when the process does, which whoever waits for it learns at once."""
        threading.Event().wait()

    @ray.method(concurrency_group="control")
    def report(self) -> ActorReport:
        """See `Expert.report`."""
        return _located(self._expert.report())


class HeadActor:
    """A `Head`, its methods in concurrency groups, and its router built on Ray."""

    def __init__(self, spec: ActorSpec) -> None:
        self._head = Head(spec)
        self._options: RouterOptions | None = None
        self._replicas = Replicas(())
        self._counter: UsageCounter | None = None
        self._order = (-1, -1)
        self._swapping = threading.Lock()
        self._faults = OwnFaults()

    @ray.method(concurrency_group="work")
    def adopt(self, epoch: int, members: Members, options: RouterOptions) -> HeadInfo:
        """Route to these experts, and `begin` the epoch."""
        if options != self._options:
            with self._swapping:  # a later `update` may be under way
                self._replicas, self._options = Replicas(self._replicas.table), options
            patience = Patience() if options.fault_tolerance else None
            self._counter = UsageCounter(self._head.expert_count) if options.load else None
            transport, link = RayTransport(), host_link(self._head.spec.device)
            self._head.connect(
                ExpertRouter(transport, self._replicas, options.grace, patience, self._counter, link=link)
            )
        self._swap(members.order, _table(members, self._head.expert_count))
        return self._head.begin(epoch)

    @ray.method(concurrency_group="control")
    def update(self, members: Members) -> list[ReplicaId]:
        """Route to these experts from the next choice on. One that is new joins once it has answered a warm-up call;
        returns those that did not.
        """
        table = _table(members, self._head.expert_count)
        known = {r for row in self._replicas.table for r in row}
        if known:  # who goes, goes at once
            self._swap(members.order, tuple(tuple(r for r in row if r in known) for row in table))
        cold = self._warm_up([r for row in table for r in row if r not in known])
        self._swap(members.order, tuple(tuple(r for r in row if r not in cold) for row in table))
        return [r.id for r in cold]

    def _swap(self, order: tuple[int, int], table: Table) -> None:
        with self._swapping:
            if order >= self._order:
                self._order = order
                self._replicas.swap(table)

    def _warm_up(self, replicas: Sequence[Replica]) -> list[Replica]:
        rows = self._head.zero_rows()
        refs = {r.endpoint.remote(encode_call(ExpertCall(-1, 0, r, rows))): r for r in replicas}
        done, late = ray.wait(list(refs), num_returns=len(refs), timeout=_WARM_SECONDS) if refs else ([], [])
        cold = [*late, *(ref for ref in done if self._faults.failed(ref, "an expert was warmed up"))]
        return [refs[ref] for ref in cold]

    @ray.method(concurrency_group="control")
    def load(self) -> HeadUsage:
        """What the replicas do."""
        counter, r = self._counter or UsageCounter(0), self._replicas
        node, mine = ray.get_runtime_context().get_node_id(), self._head.incarnation
        return HeadUsage(mine, counter.snapshot(), r.queued(), counter.retries[:], counter.hedges[:], r.doubted(), node)

    @ray.method(concurrency_group="control")
    def memory(self) -> HostMemory:
        """Of this machine."""
        return _host_memory()

    @ray.method(concurrency_group="work")
    def step(self, plan: bytes) -> bytes:
        """`Head.step` on pickled data: Ray moves `bytes` faster than objects."""
        with _ending_without_device():
            return pickle.dumps(self._head.step(pickle.loads(plan)))

    @ray.method(concurrency_group="control")
    def pulse(self) -> Pulse:
        """Which process this is, and how far its weights are."""
        return _pulse(self._head)

    @ray.method(concurrency_group="control")
    def report(self) -> ActorReport:
        """See `Head.report`."""
        return _located(self._head.report())


@contextlib.contextmanager
def _ending_without_device() -> Iterator[None]:
    """End the process when its device is lost: Ray starts it anew, and the caller does what it does after a kill."""
    try:
        yield
    except Exception as error:
        if lost_device(error):
            log.critical("the device is lost, the process ends: %s", error)
            os._exit(1)
        raise


def _table(members: Members, expert_count: int) -> Table:
    rows: list[list[Replica]] = [[] for _ in range(expert_count)]
    for replica in sorted(members.replicas, key=lambda r: r.id):
        rows[replica.expert].append(dataclasses.replace(replica, endpoint=replica.endpoint.forward))
    return tuple(map(tuple, rows))


def _located(report: ActorReport) -> ActorReport:
    node = ray.get_runtime_context().get_node_id()
    return dataclasses.replace(report, node_id=node)


def _pulse(actor: Expert | Head) -> Pulse:
    return Pulse(actor.incarnation, os.getpid(), ray.get_runtime_context().get_node_id(), actor.progress())


def _host_memory() -> HostMemory:
    memory = psutil.virtual_memory()
    return HostMemory(ray.get_runtime_context().get_node_id(), memory.total, memory.total - memory.available)


def start_actor(
    name: str,
    spec: ActorSpec,
    options: ActorOptions,
    namespace: str,
    node_id: str = "",
    avoided: Collection[str] = (),
) -> Any:
    """Create the detached actor `name`, or find it if it runs already; returns its handle at once.

    It runs on this node if there is one named, and is lost with it; else on any but those to avoid.
    """
    decorate: Any = ray.remote(concurrency_groups=_GROUPS)  # type: ignore[call-overload]  # Ray's stubs lack it
    actor_class = decorate(HeadActor if spec.expert is None else ExpertActor)
    remote = actor_class.options(
        name=name,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        resources=dict(options.resources) or None,
        scheduling_strategy=_strategy(node_id, avoided),
    )
    return remote.remote(spec)


def _strategy(node_id: str, avoided: Collection[str]) -> Any:
    if node_id:
        return NodeAffinitySchedulingStrategy(node_id, soft=False)  # soft, Ray 2.60 puts most of them elsewhere
    if avoided:
        not_in: Any = NotIn  # untyped in Ray
        return NodeLabelSchedulingStrategy(hard={_NODE_LABEL: not_in(*avoided)})
    return "SPREAD"


def pulses_in(calls: Iterable[tuple[Any, K]]) -> tuple[dict[K, Pulse], dict[K, str], dict[K, str]]:
    """What calls of `pulse` that have ended say: who answered, who is lost for good and why, who is away and why."""
    pulses: dict[K, Pulse] = {}
    lost: dict[K, str] = {}
    away: dict[K, str] = {}
    for ref, key in calls:
        try:
            pulses[key] = ray.get(ref)
        except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnschedulableError) as error:
            lost[key] = cause(error)
        except ray.exceptions.RayError as error:  # it restarts, or cannot be reached
            away[key] = cause(error)
    return pulses, lost, away


def reports_of(handles: Mapping[str, Any], timeout: float = _PROBE_SECONDS) -> dict[str, ActorReport]:
    """What the actors hold, of those that answer within `timeout` seconds; one that restarts may."""
    refs = {handle.report.remote(): name for name, handle in handles.items()}
    done = ray.wait(list(refs), num_returns=len(refs), timeout=timeout)[0] if refs else []
    faults = OwnFaults()
    return {refs[ref]: ray.get(ref) for ref in done if not faults.failed(ref, "an actor was asked what it holds")}


def cause(error: Exception) -> str:
    """The last line of what Ray says, which is the one that says why."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def stop_actors(names: list[str], namespace: str, timeout: float = 10.0) -> None:
    """Kill these named actors for good and wait until Ray has forgotten their names."""
    for name in names:
        try:
            ray.kill(ray.get_actor(name, namespace=namespace), no_restart=True)
        except ValueError:
            continue  # no such actor
    end = time.monotonic() + timeout
    while time.monotonic() < end and any(find_actor(name, namespace) for name in names):
        time.sleep(0.05)


def find_actor(name: str, namespace: str) -> Any | None:
    """The handle of a running named actor, or None."""
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None
