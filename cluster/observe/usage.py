"""What each expert did between two looks at counters that only grow."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.usage import HeadUsage, ReplicaUsage, quantile


@dataclass(frozen=True, slots=True)
class Counters:
    """A look at them: seconds on some clock, rows by layer and expert, and what the head counts of its replicas."""

    at: float
    layers: Sequence[Sequence[int]] = ()
    head: HeadUsage | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """An expert's, in a span of time; `relative` is its share of all rows times the number of experts. Times in
    seconds.
    """

    expert: int
    rows: int
    relative: float
    utilization: float = 0.0
    queued: int = 0
    service_p50: float = 0.0
    service_p99: float = 0.0
    retries: int = 0
    hedges: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """A span of `seconds`: loads by expert, by layer and over all layers."""

    seconds: float
    layers: list[list[Load]] = field(default_factory=list)
    experts: list[Load] = field(default_factory=list)


def between(before: Counters, after: Counters, replicas: Sequence[int]) -> Window:
    """What came between. `replicas` is how many of each expert computed, whose mean the utilization is."""
    seconds = max(after.at - before.at, 1e-9)
    past = before.layers or [[0] * len(row) for row in after.layers]
    layers = [
        _relative([n - p for n, p in zip(row, old, strict=True)]) for row, old in zip(after.layers, past, strict=True)
    ]
    total = _relative([sum(layer[e].rows for layer in layers) for e in range(len(replicas))])
    if after.head is None:
        return Window(seconds, layers, total)
    head = after.head
    then = before.head if before.head and before.head.incarnation == head.incarnation else None
    return Window(seconds, layers, [_whole(load, head, then, seconds, replicas[load.expert]) for load in total])


def _relative(rows: Sequence[int]) -> list[Load]:
    every = sum(rows)
    return [Load(e, count, count * len(rows) / every if every else 0.0) for e, count in enumerate(rows)]


def _whole(load: Load, head: HeadUsage, then: HeadUsage | None, seconds: float, replicas: int) -> Load:
    e = load.expert
    busy, times = 0.0, list[int]()
    for replica_id, now in head.replicas.items():
        if replica_id.expert == e:
            past = then.replicas.get(replica_id) if then else None
            busy += now.busy_seconds - (past.busy_seconds if past else 0.0)
            times = _added(times, now, past)
    return Load(
        e,
        load.rows,
        load.relative,
        min(1.0, busy / seconds / max(1, replicas)),
        sum(rows for (expert, _), rows in head.queued_rows.items() if expert == e),
        quantile(times, 0.5),
        quantile(times, 0.99),
        _grown(head.retries, then.retries if then else (), e),
        _grown(head.hedges, then.hedges if then else (), e),
    )


def _added(times: list[int], now: ReplicaUsage, past: ReplicaUsage | None) -> list[int]:
    grown = [n - p for n, p in zip(now.times, past.times, strict=True)] if past else now.times
    return [a + b for a, b in zip(times, grown, strict=True)] if times else list(grown)


def _grown(now: Sequence[int], past: Sequence[int], expert: int) -> int:
    if expert >= len(now):
        return 0
    return now[expert] - (past[expert] if expert < len(past) else 0)
