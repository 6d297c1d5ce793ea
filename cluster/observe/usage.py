"""What each expert did between two views, from counters that only grow."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from actors.usage import HeadUsage, ReplicaUsage, quantile
from cluster.observe.view import ClusterView, EngineCounters


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


def between(before: ClusterView, after: ClusterView) -> Window:
    """What came between. Utilization is the mean over an expert's replicas that are ready in the later view."""
    seconds = max(after.at - before.at, 1e-9)
    rows, ready = after.engine.expert_rows, after.ready
    past = before.engine.expert_rows or [[0] * len(row) for row in rows]
    layers = [_relative([n - p for n, p in zip(row, old, strict=True)]) for row, old in zip(rows, past, strict=True)]
    total = _relative([sum(layer[e].rows for layer in layers) for e in range(len(ready))])
    if after.head is None:
        return Window(seconds, layers, total)
    head = after.head
    then = before.head if before.head and before.head.incarnation == head.incarnation else None
    return Window(seconds, layers, [_whole(load, head, then, seconds, ready[load.expert]) for load in total])


def since_start(view: ClusterView) -> Window:
    """What came since the server started."""
    return between(replace(view, at=view.started, head=None, engine=EngineCounters()), view)


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
