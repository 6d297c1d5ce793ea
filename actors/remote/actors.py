"""The plain classes of this package as detached, named actors, and the handles to them. Of the concurrency groups
`work` computes, `control` answers meanwhile, and `watch` holds a call that ends with the process. Nothing is retried by
Ray (`max_task_retries=0`): the router sends an expert's call again, the engine a head's.
"""

import contextlib
import dataclasses
import functools
import ipaddress
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from actors.expert import Expert
from actors.head import Head
from actors.remote.faults import OwnFaults
from actors.remote.places import only_on
from actors.remote.pull import weights_of
from actors.replica import Address, ReplicaId
from actors.routing.replicas import Replicas
from actors.routing.route_table import RouteTable, RouteUpdate
from actors.routing.router import ExpertRouter
from actors.specs import ActorReport, ActorSpec
from actors.threads import threads_for
from actors.transport.channel import ChannelTransport
from actors.transport.channel_server import ChannelServer
from actors.transport.object_refs import RayTransport
from actors.transport.rows import Message, RowsHeader
from actors.transport.seam import ExpertTransport
from actors.usage import HeadUsage, UsageCounter
from actors.vitals import HostMemory, Pulse
from model.batch import HeadInfo
from model.device.failure import lost_device
from model.device.host_link import host_link
from model.device.threads import compute_with

log = logging.getLogger("eightwinds.actors")

_GROUPS = {"work": 1, "control": 2, "watch": 1}
_PROBE_SECONDS = 10.0
_NODE_LABEL = "ray.io/node-id"

# Of a process on this node, by the name that the configuration has for it.
TRANSPORTS: Mapping[str, Callable[[str], ExpertTransport]] = {
    "object_refs": lambda node_id: RayTransport(),
    "channel": ChannelTransport,
}
K = TypeVar("K")


class _Actor:
    """Head and experts both answer these calls, also while `work` computes."""

    _address: Address | None = None  # where it listens, if it does

    def __init__(self, held: Expert | Head, beside: int) -> None:
        """`beside` is how many processes of its machine compute while it does, itself included."""
        self._held, self._node_id = held, ray.get_runtime_context().get_node_id()
        self._threads = held.spec.threads or threads_for(held.config.hidden_size, beside)
        compute_with(self._threads)

    @ray.method(concurrency_group="control")
    def pulse(self) -> Pulse:
        progress = self._held.progress()
        return Pulse(self._held.incarnation, os.getpid(), self._node_id, progress, self._address, self._threads)

    @ray.method(concurrency_group="control")
    def memory(self) -> HostMemory:
        memory = psutil.virtual_memory()
        return HostMemory(self._node_id, memory.total, memory.total - memory.available)

    @ray.method(concurrency_group="control")
    def report(self) -> ActorReport:
        return dataclasses.replace(self._held.report(), node_id=self._node_id)


class ExpertActor(_Actor):
    def __init__(self, spec: ActorSpec, beside: int) -> None:
        self._expert = Expert(spec, weights_of(spec))
        machines = sum(node["Alive"] for node in _nodes())
        super().__init__(self._expert, beside or ceil(self._expert.config.num_local_experts / machines))
        if spec.transport == "channel":
            self._address = ChannelServer(self._answer, self._node_id, *_listening_place(self._node_id)).address

    @ray.method(concurrency_group="work")
    def forward(self, message: Message) -> Message:
        with _ending_without_device():
            return self._expert.forward(message)

    def _answer(self, header: RowsHeader, rows: memoryview) -> tuple[RowsHeader, memoryview]:
        with _ending_without_device():
            return self._expert.answer(header, rows)

    @ray.method(concurrency_group="watch")
    def watch(self) -> None:
        """Never return: the call ends when the process does, which its caller learns at once."""
        threading.Event().wait()


class HeadActor(_Actor):
    """A `Head`, and its router over Ray."""

    def __init__(self, spec: ActorSpec) -> None:
        self._head = Head(spec, weights_of(spec))
        super().__init__(self._head, beside=1)
        self._replicas, self._usage = Replicas(()), UsageCounter(self._head.config.num_local_experts)
        self._transport = functools.partial(TRANSPORTS[spec.transport], self._node_id)
        self._routes = RouteTable(self._replicas, self._transport, self._head.config.num_local_experts)
        self._router: ExpertRouter | None = None

    @ray.method(concurrency_group="work")
    def adopt(self, epoch: int, update: RouteUpdate, grace: float) -> HeadInfo:
        """`route` to these experts, and `begin` the epoch."""
        if self._router is None:
            link = host_link(self._head.spec.device)
            self._router = ExpertRouter(self._transport(), self._replicas, self._usage, link=link)
            self._head.connect(self._router)
        self._router.grace = grace  # a later engine may have another
        self._routes.adopt(update)
        return self._head.begin(epoch)

    @ray.method(concurrency_group="control")
    def route(self, update: RouteUpdate) -> None:
        """Route to these experts, also amid a step: it may wait for a process whose successor it has not been told of,
        because the engine that would have told it has ended, too.
        """
        self._routes.adopt(update)

    @ray.method(concurrency_group="control")
    def update(self, update: RouteUpdate) -> list[ReplicaId] | None:
        return self._routes.update(update, self._head.zero_rows())

    @ray.method(concurrency_group="control")
    def usage(self) -> HeadUsage:
        incarnation, queued, doubted = self._head.incarnation, self._replicas.queued(), self._replicas.doubted()
        did, again, hedged = self._usage.snapshot(), self._usage.retries[:], self._usage.hedges[:]
        return HeadUsage(incarnation, did, queued, again, hedged, doubted, self._node_id)

    @ray.method(concurrency_group="work")
    def step(self, plan: bytes) -> bytes:
        """`Head.step` on pickled data: Ray moves `bytes` faster than objects."""
        with _ending_without_device():
            return pickle.dumps(self._head.step(pickle.loads(plan)))


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def _listening_place(node_id: str) -> tuple[str, str]:
    """A socket's path beside those of Ray, with which it is removed, and the node's address for other machines, "" if
    that is loopback.
    """
    node = next(node for node in _nodes() if node["NodeID"] == node_id)
    file = Path(node["RayletSocketName"]).parent / f"ew{os.getpid()}"  # no longer than Ray's own names
    host = str(node["NodeManagerAddress"])
    return str(file), "" if ipaddress.ip_address(host).is_loopback else host


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


def start_actor(
    name: str,
    spec: ActorSpec,
    reserved: Mapping[str, Any],
    namespace: str,
    node_id: str,
    avoided: Collection[str],
    beside: int = 0,
) -> Any:
    """Create the detached actor `name`, or find it; returns its handle at once. `reserved` are options of Ray. The
    actor runs on this node if one is named, and is lost with it; else on any but those to avoid. `beside` so many
    experts, itself included, an expert shares its machine's cores; 0: not known.
    """
    strategy: Any = "SPREAD"
    if node_id:
        strategy = only_on(node_id)
    elif avoided:
        not_in: Any = NotIn  # untyped in Ray
        strategy = NodeLabelSchedulingStrategy(hard={_NODE_LABEL: not_in(*avoided)})
    decorate: Any = ray.remote(concurrency_groups=_GROUPS)  # type: ignore[call-overload]  # Ray's stubs lack it
    actor_class = decorate(HeadActor if spec.expert is None else ExpertActor)
    remote = actor_class.options(
        name=name,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        scheduling_strategy=strategy,
        **reserved,
    )
    return remote.remote(spec) if spec.expert is None else remote.remote(spec, beside)


def pulses_in(calls: Iterable[tuple[Any, K]]) -> tuple[dict[K, Pulse], dict[K, str], dict[K, str]]:
    """Sort calls of `pulse` that have ended: answers, why actors are lost for good, and why others are away."""
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


def reports_of(handles: Mapping[str, Any]) -> dict[str, ActorReport]:
    """Reports of the actors that answer within 10 s; an actor that restarts may be among them."""
    refs = {handle.report.remote(): name for name, handle in handles.items()}
    faults, done = OwnFaults(), finished(refs, timeout=_PROBE_SECONDS)
    found = {refs[ref]: faults.answer(ref, "an actor was asked what it holds") for ref in done}
    return {name: report for name, report in found.items() if report is not None}


def finished(calls: Iterable[Any], timeout: float = 0) -> list[Any]:
    """Calls that have ended, after waiting for all of them at most `timeout` seconds."""
    refs = list(calls)
    return list(ray.wait(refs, num_returns=len(refs), timeout=timeout)[0]) if refs else []


def cause(error: Exception) -> str:
    """The last line of what Ray says, which is the one that says why."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def stop_actors(names: list[str], namespace: str, timeout: float = 10.0) -> None:
    """Kill these named actors for good and wait until Ray has forgotten their names."""
    for handle in filter(None, [find_actor(name, namespace) for name in names]):
        ray.kill(handle, no_restart=True)
    end = time.monotonic() + timeout
    while time.monotonic() < end and any(find_actor(name, namespace) for name in names):
        time.sleep(0.05)


def find_actor(name: str, namespace: str) -> Any | None:
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None
