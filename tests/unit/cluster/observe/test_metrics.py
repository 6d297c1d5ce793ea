"""/metrics has every series of the table, in a format that Prometheus' own parser reads."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.replica import ReplicaId
from actors.usage import HeadUsage, ReplicaUsage
from cluster.client.messages import text_request
from cluster.control.controller import Controller
from cluster.observe.metrics import TABLE, exposition
from cluster.observe.view import ClusterView
from cluster.settings.request_options import Options
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.serving import Serving, failure

Values = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def read(view: ClusterView) -> Values:
    families = text_string_to_metric_families(exposition(view).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def view_of(serving: Serving) -> ClusterView:
    return serving.run(serving.gateway.backend.view())


def test_a_request_is_counted(serving: Serving) -> None:
    before = read(view_of(serving))
    answer = serving.client.generate(text_request("Once upon a time", Options(max_tokens=5, temperature=0.0)))
    failure(lambda: serving.client.generate(pb.GenerateRequest(model="another")))
    after = read(view_of(serving))

    def grown(name: str, **labels: str) -> float:
        key = name, tuple(sorted(labels.items()))
        return after[key] - before.get(key, 0.0)

    assert grown("eightwinds_prompt_tokens_total") == answer.usage.prompt_tokens
    assert grown("eightwinds_generation_tokens_total") == 5
    assert grown("eightwinds_request_success_total", finished_reason="length") == 1
    assert grown("eightwinds_time_to_first_token_seconds_count") == 1
    assert grown("eightwinds_inter_token_latency_seconds_count") == 4
    assert grown("eightwinds_e2e_request_latency_seconds_count") == 1
    assert grown("eightwinds_request_queue_time_seconds_bucket", le="+Inf") == 1
    assert grown("eightwinds_step_seconds_count", phase="prefill") == 1
    assert grown("eightwinds_step_seconds_count", phase="decode") == 4
    calls = {"grpc_service": "eightwinds.v1.InferenceService", "grpc_method": "Generate"}
    assert grown("grpc_server_handled_total", **calls, grpc_code="OK") == 1
    assert grown("grpc_server_handled_total", **calls, grpc_code="NOT_FOUND") == 1
    rows = sum(grown("eightwinds_expert_tokens_total", layer="0", expert=str(e)) for e in range(8))
    assert rows == 2 * (answer.usage.prompt_tokens + 4), "two experts a token; the last token is not run"
    assert after["eightwinds_dispatch_seconds_count", (("transport", "local"),)] >= 5
    assert 0 < after["eightwinds_layer_balance_ratio", (("layer", "0"),)] <= 1
    assert after["eightwinds_num_requests_running", ()] == 0
    assert 0 <= after["eightwinds_kv_cache_usage_ratio", ()] <= 1


def test_replicas_are_counted(serving: Serving, controlled: Controller) -> None:
    head = HeadUsage("h", {ReplicaId(3, 0): ReplicaUsage(1, 4, 2.5)}, {ReplicaId(3, 0): 7}, [0, 0, 0, 5], [0, 0, 0, 2])
    values = read(replace(view_of(serving), head=head))
    busy = (("expert", "3"), ("node", "n0"), ("replica", "0"))
    assert values["eightwinds_expert_busy_seconds_total", busy] == 2.5
    assert values["eightwinds_expert_queue_tokens", (("expert", "3"),)] == 7
    assert values["eightwinds_expert_queue_tokens", (("expert", "4"),)] == 0
    assert values["eightwinds_expert_replicas", (("expert", "3"), ("state", "ready"))] == 1
    assert values["eightwinds_expert_restarts_total", (("expert", "3"),)] == 0
    assert values["eightwinds_expert_retries_total", (("expert", "3"),)] == 5
    assert values["eightwinds_expert_hedges_total", (("expert", "3"),)] == 2


def test_without_the_head_the_rest_is_there(serving: Serving) -> None:
    names = {name for name, _ in read(replace(view_of(serving), head=None))}
    assert not any(name.startswith(("eightwinds_expert_busy", "eightwinds_expert_queue")) for name in names)
    assert "eightwinds_num_requests_waiting" in names


@pytest.mark.parametrize("name", [name for name, *_ in TABLE])
def test_every_series_is_described_and_named_as_prometheus_wants(name: str, serving: Serving) -> None:
    text = exposition(view_of(serving)).decode()
    assert f"# HELP {'' if name == 'grpc_server_handled' else 'eightwinds_'}{name}" in text


def test_refusals_are_counted_by_reason(serving: Serving) -> None:
    text = exposition(replace(view_of(serving), refused={"TOKEN_MISSING": 18_000})).decode()
    assert 'eightwinds_requests_refused_total{reason="TOKEN_MISSING"} 18000.0' in text
