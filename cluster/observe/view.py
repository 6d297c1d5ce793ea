"""The running server at one moment. It is read once for a question; status, usage, metrics and scaling all use it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from actors.usage import HeadUsage
from cluster.observe.events import Event
from cluster.observe.histogram import Histogram
from cluster.observe.requests import RequestStats
from cluster.observe.snapshot import Snapshot
from cluster.policy.replicas.lifecycle import State
from cluster.policy.replicas.scaling import ScalingPolicy


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """Outputs that run and wait and KV pages now; the rest since the start. `expert_rows` is [layer][expert] and empty
    before the first step, `step_seconds` is by phase.
    """

    running: int = 0
    waiting: int = 0
    free_pages: int = 0
    page_count: int = 1
    head_restarts: int = 0
    expert_rows: tuple[tuple[int, ...], ...] = ()
    faults: Mapping[str, int] = field(default_factory=dict)
    step_seconds: Mapping[str, Histogram] = field(default_factory=dict)
    dispatch_seconds: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """Copies that stay as they are. `at` and `started` are seconds on one clock; `head` is None while the head does not
    answer, `policy` where replicas are fixed. `handled` counts finished calls by (service, method, code), `refused`
    calls and connections by reason. `events` are the last ones, `device` is the experts' torch device.
    """

    at: float
    replicas: Snapshot
    head: HeadUsage | None = None
    engine: EngineCounters = field(default_factory=EngineCounters)
    requests: RequestStats = field(default_factory=RequestStats)
    handled: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    policy: ScalingPolicy | None = None
    events: tuple[Event, ...] = ()
    started: float = 0.0
    device: str = "cpu"
    transport: str = ""

    @property
    def ready(self) -> list[int]:
        """How many replicas of each expert are ready."""
        ready = [member.id.expert for member in self.replicas.members if member.state is State.READY]
        return [ready.count(expert) for expert in range(len(self.replicas.desired))]


class Replicas(Protocol):
    """Where replicas and the head are asked; see `cluster.control`."""

    def snapshot(self) -> Snapshot: ...

    def usage(self) -> HeadUsage | None: ...


def take(clock: Callable[[], float], replicas: Replicas, ask_head: bool = True) -> ClusterView:
    """Replicas and head as they are now; `dataclasses.replace` adds the rest. It waits for Ray and the head, so it is
    not for the event loop; a head that is away takes 2 s.
    """
    head = replicas.usage() if ask_head else None
    return ClusterView(clock(), replicas.snapshot(), head)
