"""What travels between the head and the experts, and what both are made from. No torch, no Ray.

An expert call is one message, header and rows: one argument is cheaper than two. Small ones are `bytes`, which Ray
sends in less than half the time of a tensor; large ones a numpy buffer, which the receiver maps from the object store
where `bytes` would be copied out of it. Indices and router weights stay on the head.
"""

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.routing.usage_counter import HeadLoad
from model.batch import HeadInfo, LoadProgress, StepFailure, StepPlan, StepResult

_HEADER = struct.Struct("<4sBxHIIQ")
_MAGIC = b"8W\x00\x01"
HEADER_BYTES = _HEADER.size
LARGE_BYTES = (
    500 * 1024
)  # just under what travels inside a call (max_direct_call_object_size, cluster/launch/local_ray/daemon.py)

Message = bytes | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RowsHeader:
    """Describes the rows behind it: [rows, columns] of `dtype_code`, row-major.

    In a call `layer` says which layer to run; in a reply `service_ns` says how long the expert computed.
    """

    dtype_code: int
    layer: int
    rows: int
    columns: int
    service_ns: int = 0


def encode_rows(header: RowsHeader, rows: memoryview) -> Message:
    """One message; `rows` are copied into it once."""
    h = header
    prefix = _HEADER.pack(_MAGIC, h.dtype_code, h.layer, h.rows, h.columns, h.service_ns)
    if rows.nbytes < LARGE_BYTES:
        return b"".join((prefix, rows))
    message = np.empty(HEADER_BYTES + rows.nbytes, dtype=np.uint8)
    message[:HEADER_BYTES] = np.frombuffer(prefix, dtype=np.uint8)
    message[HEADER_BYTES:] = np.frombuffer(rows, dtype=np.uint8)
    return message


def decode_header(message: Message) -> RowsHeader:
    """The header of a message, whose rows begin at HEADER_BYTES; ValueError if it is none of ours."""
    if len(message) < HEADER_BYTES:
        raise ValueError(f"{len(message)} bytes are no rows message")
    magic, code, layer, rows, columns, service_ns = _HEADER.unpack(bytes(message[:HEADER_BYTES]))
    if magic != _MAGIC:
        raise ValueError("the message is of another version: restart experts and head together")
    return RowsHeader(code, layer, rows, columns, service_ns)


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """What an actor is built from. `expert` is None for the head; `threads` bounds torch, 0 leaves it alone.

    `kv_memory_share` is of the free memory, at most `kv_memory_most` (0: any), and goes before `kv_memory_bytes` unless
    it is 0. `digest` is the
    checkpoint's and `code` that of this project's files: running actors of an equal spec can be adopted, others are
    replaced. Empty ones are not compared.
    """

    folder: str
    dtype: str
    device: str
    threads: int = 1
    expert: int | None = None
    kv_memory_bytes: int = 0
    kv_memory_share: float = 0.0
    kv_memory_most: int = 0
    page_size: int = 16
    digest: str = ""
    code: str = ""


def kv_bytes(spec: ActorSpec, free: int) -> int:
    """Bytes of the KV cache of this head, when so many are free once the weights are loaded."""
    if not spec.kv_memory_share:
        return spec.kv_memory_bytes
    share = int(spec.kv_memory_share * free)
    return min(share, spec.kv_memory_most) if spec.kv_memory_most else share


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """What Ray reserves for an actor, fractional where Ray allows it. Zero CPUs reserves none."""

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActorReport:
    """What a process is and holds, for operators and tests: `tensors` gives the stored bytes by tensor name."""

    pid: int
    node_id: str
    spec: ActorSpec
    weight_bytes: int
    tensors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pulse:
    """Which process an actor is now, where, and how far its weights are. A restarted one has another incarnation."""

    incarnation: str
    pid: int
    node_id: str
    progress: LoadProgress


@dataclass(frozen=True, slots=True)
class RouterOptions:
    """How the head's router works: seconds until an expert without an answer fails the step, whether late and failed
    calls go to other replicas, whether replicas' work is counted.
    """

    grace: float = 60.0
    fault_tolerance: bool = True
    load: bool = True


Key = tuple[int, int]  # a replica: its expert and its slot among that expert's replicas


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Of the machine that a process runs on, in bytes: all of it, and what is in use, by whomever."""

    node_id: str
    total: int
    used: int


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A machine of the cluster; `free` is what Ray has not reserved there. Memory is in bytes; what is in use is 0
    where no process of ours could be asked yet.
    """

    node_id: str
    address: str
    alive: bool
    free: Mapping[str, float] = field(default_factory=dict)
    accelerators: int = 0
    memory_total: int = 0
    memory_used: int = 0


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is known of replicas that were asked: those that answered, those that are gone for good, with why, and those
    that cannot be asked just now, with why.
    """

    pulses: Mapping[Key, Pulse] = field(default_factory=dict)
    lost: Mapping[Key, str] = field(default_factory=dict)
    away: Mapping[Key, str] = field(default_factory=dict)


class ExpertUnavailable(Exception):
    """No replica of an expert answered within its grace."""


class HeadLost(Exception):
    """The head's process is gone or does not answer; what it computed is lost."""


class HeadTaken(Exception):
    """Another engine drives this head, of this `epoch` or a higher one."""

    def __init__(self, text: str, epoch: int) -> None:
        super().__init__(text, epoch)
        self.epoch = epoch

    def __str__(self) -> str:
        return str(self.args[0])


class HeadHandle(Protocol):
    """The engine's view of the head. One plan is under way at a time."""

    def begin(self, epoch: int) -> HeadInfo:
        """Take the head over: it forgets every sequence and refuses plans of other epochs. Raises HeadLost or
        HeadTaken.
        """
        ...

    def submit(self, plan: StepPlan) -> None:
        """Send a plan; the answer is fetched with `poll`."""
        ...

    def poll(self, timeout: float | None) -> StepResult | StepFailure | None:
        """The answer, or None after `timeout` seconds. Raises HeadLost."""
        ...


class ClusterOps(Protocol):
    """The controller's view of the cluster. Nothing here waits for a replica, but `publish` for a moment. For the
    controller's thread; `load` and `nodes` are called from gRPC's threads, too.
    """

    def start(self, key: Key, node_id: str, avoided: Collection[str]) -> None:
        """Begin to start a replica: on this node if one is named, else where there is or will be room, but not on
        those to avoid.
        """
        ...

    def stop(self, key: Key) -> None:
        """End a replica for good, or the attempt to start it."""
        ...

    def ask(self, keys: Collection[Key]) -> Vitals:
        """Ask these how they are; the answers that have come since the last call. Who is asked already is not asked
        again.
        """
        ...

    def ended(self) -> frozenset[Key]:
        """Those whose process has ended since they last were published, each once."""
        ...

    def publish(self, incarnations: Mapping[Key, str]) -> frozenset[Key] | None:
        """Have the head route to these and no others. Answers those that did not join since a warm-up call failed, or
        None if the head does not answer: then it is to be told again.
        """
        ...

    def load(self) -> HeadLoad | None:
        """What the replicas do; None while the head does not answer."""
        ...

    def nodes(self) -> list[NodeInfo]:
        """The machines."""
        ...
