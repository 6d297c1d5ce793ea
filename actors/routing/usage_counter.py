"""What each replica does: counted by the router, read by another thread. Counters only grow, so that whoever reads
twice knows what came between; their number is bounded by that of the replicas.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from actors.routing.replicas import Replica

_LEAST = 1e-5  # seconds up to which a service time falls into the first bucket
_GROWTH = 1.2
_BUCKETS = 80  # up to 18 s, then the last one
_SCALE = 1.0 / math.log(_GROWTH)


@dataclass(slots=True)
class ReplicaLoad:
    """Calls, rows and seconds of computing of one replica, and its calls by service time."""

    calls: int = 0
    rows: int = 0
    busy_seconds: float = 0.0
    times: list[int] = field(default_factory=lambda: [0] * _BUCKETS)


@dataclass(frozen=True, slots=True)
class HeadLoad:
    """Since the head's incarnation began: by (expert, slot) what replicas did, the rows they have now and which are
    doubted, by expert how many calls were sent again or hedged. `node_id` is the head's.
    """

    incarnation: str
    replicas: Mapping[tuple[int, int], ReplicaLoad]
    queued_rows: Mapping[tuple[int, int], int]
    retries: Sequence[int]
    hedges: Sequence[int]
    doubted: frozenset[tuple[int, int]] = frozenset()
    node_id: str = ""


class LoadCounter:
    """Written by the thread that routes."""

    def __init__(self, expert_count: int) -> None:
        self.retries, self.hedges = [0] * expert_count, [0] * expert_count
        self._replicas: dict[tuple[int, int], ReplicaLoad] = {}

    def served(self, replica: Replica, rows: int, seconds: float) -> None:
        """A replica answered."""
        key = replica.expert, replica.slot
        load = self._replicas.get(key)
        if load is None:
            load = self._replicas[key] = ReplicaLoad()
        load.calls += 1
        load.rows += rows
        load.busy_seconds += seconds
        load.times[_bucket(seconds)] += 1

    def again(self, expert: int, hedged: bool) -> None:
        """A call was sent to another replica as well."""
        (self.hedges if hedged else self.retries)[expert] += 1

    def snapshot(self) -> dict[tuple[int, int], ReplicaLoad]:
        """A copy, by (expert, slot)."""
        found = dict(self._replicas)  # one step under the interpreter's lock
        return {k: ReplicaLoad(v.calls, v.rows, v.busy_seconds, list(v.times)) for k, v in found.items()}


def _bucket(seconds: float) -> int:
    if seconds <= _LEAST:
        return 0
    return min(_BUCKETS - 1, 1 + int(math.log(seconds / _LEAST) * _SCALE))


def quantile(times: Sequence[int], share: float) -> float:
    """Service time in seconds below which this share of the calls lies: the upper end of its bucket, at most a fifth
    too long. 0 without calls.
    """
    wanted, seen = share * sum(times), 0
    for bucket, count in enumerate(times):
        seen += count
        if count and seen >= wanted:
            return _LEAST * _GROWTH**bucket
    return 0.0
