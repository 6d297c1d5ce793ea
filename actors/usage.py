"""Counters of each replica's work since its head began. They only grow, so the difference of two readings is a rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from actors.replica import ReplicaId

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
    """Since the head's incarnation began: by replica what replicas did, the rows they have now and which are
    doubted, by expert how many calls were sent again or hedged. `node_id` is the head's.
    """

    incarnation: str
    replicas: Mapping[ReplicaId, ReplicaUsage]
    queued_rows: Mapping[ReplicaId, int]
    retries: Sequence[int]
    hedges: Sequence[int]
    doubted: frozenset[ReplicaId] = frozenset()
    node_id: str = ""


def bucket_of(seconds: float) -> int:
    """The bucket of `ReplicaUsage.times` that a service time falls into."""
    return 0 if seconds <= _LEAST else min(_BUCKETS - 1, 1 + int(math.log(seconds / _LEAST) * _SCALE))


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
