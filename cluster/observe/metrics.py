"""`/metrics`: a view of the server as Prometheus series. One table names them all.

Names are vLLM's under our prefix where it has them; those of experts are our own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.observe.histogram import Histogram
from cluster.observe.view import ClusterView

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float | Histogram]]


@dataclass(frozen=True, slots=True)
class Series:
    """A row of the table: `kind` is gauge, counter or histogram; `read` gives its samples by label values."""

    name: str
    kind: str
    help: str
    labels: Labels
    read: Callable[[ClusterView], Samples]


def _requests(name: str) -> Callable[[ClusterView], Samples]:
    return lambda view: [((), getattr(view.requests, name))]


def _one(value: float | Histogram) -> Samples:
    return [((), value)]


def _layers(view: ClusterView) -> Samples:
    for layer, row in enumerate(view.engine.expert_rows):
        for expert, count in enumerate(row):
            yield (str(layer), str(expert)), count


def _balance(view: ClusterView) -> Samples:
    for layer, row in enumerate(view.engine.expert_rows):
        if any(row):
            yield (str(layer),), sum(row) / len(row) / max(row)


def _busy(view: ClusterView) -> Samples:
    nodes = {m.id: m.node_id for m in view.replicas.members}
    for replica_id, load in view.head.replicas.items() if view.head else ():
        yield (str(replica_id.expert), str(replica_id.index), nodes.get(replica_id, "")), load.busy_seconds


def _queued(view: ClusterView) -> Samples:
    if view.head is None:
        return ()
    rows = [0] * len(view.replicas.desired)
    for (expert, _), count in view.head.queued_rows.items():
        rows[expert] += count
    return _by_expert(rows)


def _replicas(view: ClusterView) -> Samples:
    return Counter((str(member.id.expert), member.state.value) for member in view.replicas.members).items()


def _by_expert(counts: Iterable[int]) -> Samples:
    return [((str(expert),), count) for expert, count in enumerate(counts)]


def _kv_usage(view: ClusterView) -> float:
    return 1.0 - view.engine.free_pages / view.engine.page_count


TABLE = (
    Series("num_requests_running", "gauge", "Outputs in slots.", (), lambda at: _one(at.engine.running)),
    Series("num_requests_waiting", "gauge", "Outputs that wait.", (), lambda at: _one(at.engine.waiting)),
    Series("kv_cache_usage_ratio", "gauge", "Share of KV pages held.", (), lambda at: _one(_kv_usage(at))),
    Series("time_to_first_token_seconds", "histogram", "Since accepted.", (), _requests("first_token")),
    Series("inter_token_latency_seconds", "histogram", "Between tokens.", (), _requests("gap")),
    Series("e2e_request_latency_seconds", "histogram", "Whole requests.", (), _requests("total")),
    Series("request_queue_time_seconds", "histogram", "Until it first ran.", (), _requests("queue")),
    Series("prompt_tokens", "counter", "Tokens of prompts.", (), _requests("prompt_tokens")),
    Series("generation_tokens", "counter", "Tokens put out.", (), _requests("generation_tokens")),
    Series(
        "request_success", "counter", "Outputs that ended well.", ("finished_reason",),
        lambda at: [((reason,), count) for reason, count in at.requests.finished.items()],
    ),
    Series(
        "sequence_faults", "counter", "Outputs that could not go on: no numbers, or no way on.", ("kind",),
        lambda at: [((kind,), count) for kind, count in at.engine.faults.items()],
    ),
    Series(
        "grpc_server_handled", "counter", "Calls that ended.", ("grpc_service", "grpc_method", "grpc_code"),
        lambda at: list(at.handled.items()),
    ),
    Series(
        "requests_refused", "counter", "Calls and connections by why they were refused.", ("reason",),
        lambda at: [((reason,), count) for reason, count in at.refused.items()],
    ),
    Series("expert_tokens", "counter", "Rows that experts ran.", ("layer", "expert"), _layers),
    Series("expert_busy_seconds", "counter", "Computing.", ("expert", "replica", "node"), _busy),
    Series("expert_queue_tokens", "gauge", "Rows under way to an expert.", ("expert",), _queued),
    Series("expert_replicas", "gauge", "Replicas by state.", ("expert", "state"), _replicas),
    Series(
        "expert_restarts", "counter", "Processes that were replaced.", ("expert",),
        lambda at: _by_expert(at.replicas.restarts),
    ),
    Series(
        "expert_retries", "counter", "Calls that were sent again.", ("expert",),
        lambda at: _by_expert(at.head.retries if at.head else ()),
    ),
    Series(
        "expert_hedges", "counter", "Calls that were hedged.", ("expert",),
        lambda at: _by_expert(at.head.hedges if at.head else ()),
    ),
    Series("layer_balance_ratio", "gauge", "Rows per expert, mean / max; 1 is even.", ("layer",), _balance),
    Series(
        "dispatch_seconds", "histogram", "Waiting for experts, per step.", ("transport",),
        lambda at: [((at.transport,), at.engine.dispatch_seconds)],
    ),
    Series(
        "step_seconds", "histogram", "Steps of the head.", ("phase",),
        lambda at: [((phase,), times) for phase, times in at.engine.step_seconds.items()],
    ),
)  # fmt: skip

_UNPREFIXED = {"grpc_server_handled"}  # a name that dashboards know


class _Reading(Collector):
    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Every series of the table."""
        for series in TABLE:
            name = series.name if series.name in _UNPREFIXED else f"eightwinds_{series.name}"
            family = _FAMILIES[series.kind](name, series.help, labels=series.labels)
            for labels, value in series.read(self._view):
                if isinstance(value, Histogram):
                    family.add_metric(labels, buckets=value.cumulative(), sum_value=value.sum)
                else:
                    family.add_metric(labels, value)
            yield family


_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}


def exposition(view: ClusterView) -> bytes:
    """The view in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reading(view))
    return generate_latest(registry)
