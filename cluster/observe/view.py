"""The running server at one moment. It is read once for a question; status, usage, metrics and scaling all use it."""

import bisect
import copy
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.usage import HeadUsage
from actors.vitals import NodeInfo
from cluster.observe.events import Event
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.scaling import ScalingPolicy
from cluster.policy.scheduling.sequence import Routing

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Histogram:
    """How many values are up to each of `bounds`, and above the last. Written by one thread, read by any."""

    def __init__(self, bounds: Sequence[float] = _SECONDS) -> None:
        self.bounds, self.sum = tuple(bounds), 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self._counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus writes it: ("0.5", 3), ..., ("+Inf", 9)."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, map(float, itertools.accumulate(self._counts)), strict=True))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The replicas and nodes. `draining` are ids of nodes, `restarts` are of each expert's processes."""

    revision: int
    desired: tuple[int, ...]
    members: tuple[Member, ...]
    notes: Mapping[int, str]
    nodes: tuple[NodeInfo, ...]
    draining: frozenset[str] = frozenset()
    restarts: tuple[int, ...] = ()


@dataclass(slots=True)
class RequestStats:
    """Counts of all requests since the start, written on the event loop, read by any thread: seconds until a
    request first ran, until its first token, between tokens and in all; tokens, and outputs by why they ended.
    """

    queue: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)
    gap: Histogram = field(default_factory=Histogram)
    total: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)

    def copy(self) -> "RequestStats":
        return copy.deepcopy(replace(self, finished=self.finished.copy()))  # a dict must not grow while it is walked


@dataclass(slots=True)
class EngineCounters:
    """Outputs that run and wait and KV pages now; the rest since the start. `expert_rows` is [layer][expert] and empty
    before the first step, `step_seconds` is by phase.
    """

    running: int = 0
    waiting: int = 0
    free_pages: int = 0
    page_count: int = 1
    head_restarts: int = 0
    expert_rows: Routing = ()
    faults: Counter[str] = field(default_factory=lambda: Counter(numeric=0, constraint=0))
    step_seconds: dict[str, Histogram] = field(
        default_factory=lambda: {phase: Histogram() for phase in ("prefill", "decode", "mixed")}
    )
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
