"""How processes and machines are: plain data that actors send and policies read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.replica import Address, ReplicaId
from model.batch import LoadProgress


@dataclass(frozen=True, slots=True)
class Pulse:
    """Which process an actor is now, where, and how far its weights are. A restarted one has another incarnation.
    `threads` is how many it computes with.
    """

    incarnation: str
    pid: int
    node_id: str
    progress: LoadProgress
    address: Address | None = None  # where it listens, if it does
    threads: int = 1


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Of the machine that a process runs on, in bytes: all of it, and what is in use, by whomever."""

    node_id: str
    total: int
    used: int


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A machine. `free` is what Ray has not reserved. `memory_used` is 0 until a process there was asked; in bytes.
    `speed` is how many calls of one layer's expert its cores compute in a second, 0 while it has not been measured.
    """

    node_id: str
    address: str
    alive: bool
    free: Mapping[str, float] = field(default_factory=dict)
    accelerators: int = 0
    memory_total: int = 0
    memory_used: int = 0
    speed: float = 0.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """The state of replicas that were asked: answers, why replicas are gone for good, why others are away."""

    pulses: Mapping[ReplicaId, Pulse] = field(default_factory=dict)
    lost: Mapping[ReplicaId, str] = field(default_factory=dict)
    away: Mapping[ReplicaId, str] = field(default_factory=dict)
