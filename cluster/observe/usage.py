"""Each expert's work between two views, from counters that only grow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from actors.usage import HeadUsage, ReplicaUsage, quantile
from cluster.observe.view import ClusterView, EngineCounters

_NO_USAGE = HeadUsage("", {}, {}, (), ())


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
    layers: list[list[Load]]
    experts: list[Load]


def between(before: ClusterView, after: ClusterView) -> Window:
    """The window between two views. Utilization is the mean over the replicas that are ready in the later view."""
    seconds = max(after.at - before.at, 1e-9)
    rows, ready, head = after.engine.expert_rows, after.ready, after.head
    past = before.engine.expert_rows or [[0] * len(row) for row in rows]
    layers = [_relative([n - p for n, p in zip(row, old, strict=True)]) for row, old in zip(rows, past, strict=True)]
    total = _relative([sum(layer[e].rows for layer in layers) for e in range(len(ready))])
    if head is not None:
        then = before.head if before.head and before.head.incarnation == head.incarnation else _NO_USAGE
        total = [_whole(load, head, then, seconds, ready[load.expert]) for load in total]
    return Window(seconds, layers, total)


def since_start(view: ClusterView) -> Window:
    return between(replace(view, at=view.started, head=None, engine=EngineCounters()), view)


def _relative(rows: Sequence[int]) -> list[Load]:
    every = sum(rows)
    return [Load(e, count, count * len(rows) / every if every else 0.0) for e, count in enumerate(rows)]


def _whole(load: Load, head: HeadUsage, then: HeadUsage, seconds: float, replicas: int) -> Load:
    busy, times = 0.0, ReplicaUsage().times
    for replica_id, now in head.replicas.items():
        if replica_id.expert == load.expert:
            past = then.replicas.get(replica_id, ReplicaUsage())
            busy += now.busy_seconds - past.busy_seconds
            times = [t + n - p for t, n, p in zip(times, now.times, past.times, strict=True)]
    return replace(
        load,
        utilization=min(1.0, busy / seconds / max(1, replicas)),
        queued=sum(rows for (expert, _), rows in head.queued_rows.items() if expert == load.expert),
        service_p50=quantile(times, 0.5),
        service_p99=quantile(times, 0.99),
        retries=_of(head.retries, load.expert) - _of(then.retries, load.expert),
        hedges=_of(head.hedges, load.expert) - _of(then.hedges, load.expert),
    )


def _of(counts: Sequence[int], expert: int) -> int:
    """0 where nothing is counted: with one process, or before the head."""
    return counts[expert] if expert < len(counts) else 0
