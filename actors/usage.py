"""Counters of each replica's work since its head began. They only grow, so the difference of two readings is a rate."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from actors.replica import Replica, ReplicaId

_LEAST = 1e-5  # seconds up to which a service time falls into the first bucket
_GROWTH = 1.2
_BUCKETS = 80  # up to 18 s, then the last one
_SCALE = 1.0 / math.log(_GROWTH)


@dataclass(slots=True)
class ReplicaUsage:
    """Calls, rows and seconds of computing of one replica, and its calls by service time."""

    calls: int = 0
    rows: int = 0
    busy_seconds: float = 0.0
    times: list[int] = field(default_factory=lambda: [0] * _BUCKETS)


@dataclass(frozen=True, slots=True)
class HeadUsage:
    """Since the head's incarnation began; `queued_rows` and `doubted` are as of now. `retries` and `hedges` are by
    expert.
    """

    incarnation: str
    replicas: Mapping[ReplicaId, ReplicaUsage]
    queued_rows: Mapping[ReplicaId, int]
    retries: Sequence[int]
    hedges: Sequence[int]
    doubted: frozenset[ReplicaId] = frozenset()
    node_id: str = ""


def quantile(times: Sequence[int], share: float) -> float:
    """Service time in seconds below which this share of the calls lies, at most a fifth too long. 0 without calls."""
    wanted, seen = share * sum(times), 0
    for bucket, count in enumerate(times):
        seen += count
        if count and seen >= wanted:
            return _LEAST * _GROWTH**bucket
    return 0.0


class UsageCounter:
    """Written by the thread that routes; other threads take snapshots."""

    def __init__(self, expert_count: int) -> None:
        self.retries, self.hedges = [0] * expert_count, [0] * expert_count
        self._replicas = defaultdict[ReplicaId, ReplicaUsage](ReplicaUsage)

    def served(self, replica: Replica, rows: int, seconds: float) -> None:
        usage = self._replicas[replica.id]
        usage.calls += 1
        usage.rows += rows
        usage.busy_seconds += seconds
        bucket = 1 + int(math.log(seconds / _LEAST) * _SCALE) if seconds > _LEAST else 0
        usage.times[min(bucket, _BUCKETS - 1)] += 1

    def again(self, expert: int, hedged: bool) -> None:
        (self.hedges if hedged else self.retries)[expert] += 1

    def snapshot(self) -> dict[ReplicaId, ReplicaUsage]:
        found = dict(self._replicas)  # one step under the interpreter's lock
        return {k: ReplicaUsage(v.calls, v.rows, v.busy_seconds, list(v.times)) for k, v in found.items()}
