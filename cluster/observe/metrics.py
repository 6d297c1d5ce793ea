"""`/metrics`: a view of the server as Prometheus series. One table names them all: by vLLM's names under our prefix
where it has them; names of experts' series are our own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.observe.view import ClusterView, Histogram

Samples = Iterable[tuple[tuple[str, ...], float | Histogram]]  # (values of the labels, value)
Read = Callable[[ClusterView], Samples]

_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}
_GRPC_LABELS = "grpc_service grpc_method grpc_code"
_UNPREFIXED = {"grpc_server_handled"}  # a name that dashboards know


def _value(path: str) -> Read:
    return lambda view: [((), attrgetter(path)(view))]


def _by_key(path: str) -> Read:
    return lambda view: [((key,), value) for key, value in attrgetter(path)(view).items()]


def _by_expert(part: str, name: str) -> Read:
    """Nothing while the part is None."""
    return lambda view: [((str(e),), count) for e, count in enumerate(getattr(getattr(view, part), name, ()))]


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
    if view.head:
        rows = Counter[int]()
        for (expert, _), count in view.head.queued_rows.items():
            rows[expert] += count
        for expert in range(len(view.replicas.desired)):
            yield (str(expert),), rows[expert]


def _replicas(view: ClusterView) -> Samples:
    return Counter((str(member.id.expert), member.state.value) for member in view.replicas.members).items()


def _kv_usage(view: ClusterView) -> Samples:
    return [((), 1.0 - view.engine.free_pages / view.engine.page_count)]


def _dispatch(view: ClusterView) -> Samples:
    return [((view.transport,), view.engine.dispatch_seconds)]


# name, kind, help, names of the labels, samples
TABLE: tuple[tuple[str, str, str, str, Read], ...] = (
    ("num_requests_running", "gauge", "Outputs in slots.", "", _value("engine.running")),
    ("num_requests_waiting", "gauge", "Outputs that wait.", "", _value("engine.waiting")),
    ("kv_cache_usage_ratio", "gauge", "Share of KV pages held.", "", _kv_usage),
    ("time_to_first_token_seconds", "histogram", "Since accepted.", "", _value("requests.first_token")),
    ("inter_token_latency_seconds", "histogram", "Between tokens.", "", _value("requests.gap")),
    ("e2e_request_latency_seconds", "histogram", "Whole requests.", "", _value("requests.total")),
    ("request_queue_time_seconds", "histogram", "Until it first ran.", "", _value("requests.queue")),
    ("prompt_tokens", "counter", "Tokens of prompts.", "", _value("requests.prompt_tokens")),
    ("generation_tokens", "counter", "Tokens put out.", "", _value("requests.generation_tokens")),
    ("request_success", "counter", "Outputs that ended well.", "finished_reason", _by_key("requests.finished")),
    (
        "sequence_faults",
        "counter",
        "Outputs that could not go on: no numbers, or no way on.",
        "kind",
        _by_key("engine.faults"),
    ),
    ("grpc_server_handled", "counter", "Calls that ended.", _GRPC_LABELS, lambda view: view.handled.items()),
    ("requests_refused", "counter", "Calls and connections by why they were refused.", "reason", _by_key("refused")),
    ("expert_tokens", "counter", "Rows that experts ran.", "layer expert", _layers),
    ("expert_busy_seconds", "counter", "Computing.", "expert replica node", _busy),
    ("expert_queue_tokens", "gauge", "Rows under way to an expert.", "expert", _queued),
    ("expert_replicas", "gauge", "Replicas by state.", "expert state", _replicas),
    ("expert_restarts", "counter", "Processes that were replaced.", "expert", _by_expert("replicas", "restarts")),
    ("expert_retries", "counter", "Calls that were sent again.", "expert", _by_expert("head", "retries")),
    ("expert_hedges", "counter", "Calls that were hedged.", "expert", _by_expert("head", "hedges")),
    ("layer_balance_ratio", "gauge", "Rows per expert, mean / max; 1 is even.", "layer", _balance),
    ("dispatch_seconds", "histogram", "Waiting for experts, per step.", "transport", _dispatch),
    ("step_seconds", "histogram", "Steps of the head.", "phase", _by_key("engine.step_seconds")),
)


class _Reading(Collector):
    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        for name, kind, explained, labels, read in TABLE:
            whole_name = name if name in _UNPREFIXED else f"eightwinds_{name}"
            family = _FAMILIES[kind](whole_name, explained, labels=labels.split())
            for values, value in read(self._view):
                if isinstance(value, Histogram):
                    family.add_metric(values, buckets=value.cumulative(), sum_value=value.sum)
                else:
                    family.add_metric(values, value)
            yield family


def exposition(view: ClusterView) -> bytes:
    """The view in Prometheus' text format."""
    return generate_latest(_Reading(view))
