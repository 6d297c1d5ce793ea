"""`/metrics`: everything that is counted elsewhere in plain numbers, as Prometheus series. One table names them all.

Names are vLLM's under our prefix where it has them; those of experts are our own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.usage import HeadUsage
from cluster.engine.engine import Engine
from cluster.engine.generation import RequestStats
from cluster.observe.histogram import Histogram
from cluster.observe.snapshot import Snapshot

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float | Histogram]]


@dataclass(frozen=True, slots=True)
class Look:
    """What is read at once: `snapshot` and `head` are None where there is no controller or the head is away.
    `handled` counts finished calls by (service, method, code), `refused` calls and connections by reason.
    """

    engine: Engine
    requests: RequestStats
    handled: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    head: HeadUsage | None = None
    transport: str = ""
    refused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Series:
    """A row of the table: `kind` is gauge, counter or histogram; `read` gives its samples by label values."""

    name: str
    kind: str
    help: str
    labels: Labels
    read: Callable[[Look], Samples]


def _requests(name: str) -> Callable[[Look], Samples]:
    return lambda look: [((), getattr(look.requests, name))]


def _one(value: float | Histogram) -> Samples:
    return [((), value)]


def _layers(look: Look) -> Samples:
    for layer, row in enumerate(look.engine.statistics.expert_tokens):
        for expert, count in enumerate(row):
            yield (str(layer), str(expert)), count


def _balance(look: Look) -> Samples:
    for layer, row in enumerate(look.engine.statistics.expert_tokens):
        if any(row):
            yield (str(layer),), sum(row) / len(row) / max(row)


def _busy(look: Look) -> Samples:
    nodes = {m.id: m.node_id for m in look.snapshot.members} if look.snapshot else {}
    for replica_id, load in look.head.replicas.items() if look.head else ():
        yield (str(replica_id.expert), str(replica_id.index), nodes.get(replica_id, "")), load.busy_seconds


def _queued(look: Look) -> Samples:
    rows: dict[int, int] = {expert: 0 for expert, _ in enumerate(look.snapshot.desired)} if look.snapshot else {}
    for (expert, _), count in look.head.queued_rows.items() if look.head else ():
        rows[expert] = rows.get(expert, 0) + count
    return [((str(expert),), count) for expert, count in rows.items()] if look.head else []


def _replicas(look: Look) -> Samples:
    counts: dict[tuple[str, str], int] = {}
    for member in look.snapshot.members if look.snapshot else ():
        key = str(member.id.expert), member.state.value
        counts[key] = counts.get(key, 0) + 1
    return counts.items()


def _restarts(look: Look) -> Samples:
    return _by_expert(look.snapshot.restarts) if look.snapshot else ()


def _by_expert(counts: Iterable[int]) -> Samples:
    return [((str(expert),), count) for expert, count in enumerate(counts)]


def _kv_usage(look: Look) -> float:
    return 1.0 - look.engine.free_pages / look.engine.limits.page_count


TABLE = (
    Series("num_requests_running", "gauge", "Outputs in slots.", (), lambda at: _one(at.engine.running_count)),
    Series("num_requests_waiting", "gauge", "Outputs that wait.", (), lambda at: _one(at.engine.waiting_count)),
    Series("kv_cache_usage_ratio", "gauge", "Share of KV pages held.", (), lambda at: _one(_kv_usage(at))),
    Series("time_to_first_token_seconds", "histogram", "Since accepted.", (), _requests("first_token")),
    Series("inter_token_latency_seconds", "histogram", "Between tokens.", (), _requests("gap")),
    Series("e2e_request_latency_seconds", "histogram", "Whole requests.", (), _requests("total")),
    Series("request_queue_time_seconds", "histogram", "Until it first ran.", (), _requests("queue")),
    Series("prompt_tokens", "counter", "Tokens of prompts.", (), _requests("prompt_tokens")),
    Series("generation_tokens", "counter", "Tokens put out.", (), _requests("generation_tokens")),
    Series(
        "request_success", "counter", "Outputs that ended well.", ("finished_reason",),
        lambda at: [((reason,), count) for reason, count in at.requests.finished.copy().items()],
    ),
    Series(
        "sequence_faults", "counter", "Outputs that could not go on: no numbers, or no way on.", ("kind",),
        lambda at: [((kind,), count) for kind, count in at.engine.statistics.faults.copy().items()],
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
    Series("expert_restarts", "counter", "Processes that were replaced.", ("expert",), _restarts),
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
        lambda at: [((at.transport,), at.engine.statistics.dispatch_seconds)],
    ),
    Series(
        "step_seconds", "histogram", "Steps of the head.", ("phase",),
        lambda at: [((phase,), times) for phase, times in at.engine.statistics.step_seconds.items()],
    ),
)  # fmt: skip

_UNPREFIXED = {"grpc_server_handled"}  # a name that dashboards know


class _Reading(Collector):
    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """Every series of the table."""
        for series in TABLE:
            name = series.name if series.name in _UNPREFIXED else f"eightwinds_{series.name}"
            family = _FAMILIES[series.kind](name, series.help, labels=series.labels)
            for labels, value in series.read(self._look):
                if isinstance(value, Histogram):
                    family.add_metric(labels, buckets=value.cumulative(), sum_value=value.sum)
                else:
                    family.add_metric(labels, value)
            yield family


_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}


def exposition(look: Look) -> bytes:
    """What is read now, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reading(look))
    return generate_latest(registry)
