"""The ClusterService over gRPC, before a controller of a cluster that computes nothing."""

import grpc
import pytest

from actors.replica import ReplicaId
from actors.usage import HeadUsage
from cluster.control.controller import Controller
from cluster.engine.served_model import ServedModel
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.clusters import FakeCluster
from tests.serving import Serving, failure

READY = pb.REPLICA_STATE_READY


def scale_request(counts: dict[int, int], **more: int) -> pb.ScaleExpertsRequest:
    wanted = [pb.ExpertScale(expert=e, replica_count=n) for e, n in counts.items()]
    return pb.ScaleExpertsRequest(experts=wanted, **more)  # type: ignore[arg-type]


def test_status_names_nodes_experts_and_replicas(serving: Serving, controlled: Controller) -> None:
    status = serving.client.status()
    assert [n.id for n in status.nodes] == ["n0", "n1"] and status.placement_revision == 1
    assert [e.expert for e in status.experts] == list(range(8))
    for e in status.experts:
        assert [(r.replica, r.node_id, r.state) for r in e.replicas] == [(0, "n0", READY)]
        assert e.desired_replica_count == 1
    assert status.heads[0].state == READY


def test_what_does_not_answer_is_shown_as_unreachable(
    serving: Serving, controlled: Controller, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = HeadUsage("h", {}, {}, [], [], doubted=frozenset({ReplicaId(3, 0)}), node_id="n1")
    monkeypatch.setattr(cluster, "usage", lambda: usage)
    status = serving.client.status()
    assert [e.replicas[0].state for e in status.experts] == [READY] * 3 + [pb.REPLICA_STATE_UNREACHABLE] + [READY] * 4
    assert (status.heads[0].state, status.heads[0].node_id) == (READY, "n1")
    monkeypatch.setattr(cluster, "usage", lambda: None)
    status = serving.client.status()
    assert [e.replicas[0].state for e in status.experts] == [READY] * 8
    assert (status.heads[0].state, status.heads[0].node_id) == (pb.REPLICA_STATE_UNREACHABLE, "")


def test_a_summary_has_numbers_only(serving: Serving, controlled: Controller) -> None:
    status = serving.client.cluster.GetStatus(pb.GetStatusRequest(summary_only=True))
    assert [e.desired_replica_count for e in status.experts] == [1] * 8
    assert not status.nodes and not any(e.replicas for e in status.experts)


def test_scaling_up_and_down(serving: Serving, controlled: Controller) -> None:
    answer = serving.client.scale({3: 3}, validate_only=True)
    assert (answer.placement_revision, len(answer.changes)) == (1, 2)
    answer = serving.client.scale({3: 3})
    assert [(c.expert, c.node_id, c.start) for c in answer.changes] == [(3, "n1", True)] * 2
    assert answer.placement_revision == 2
    controlled.tick()
    controlled.tick()
    expert = serving.client.status().experts[3]
    assert [(r.replica, r.state) for r in expert.replicas] == [(0, READY), (1, READY), (2, READY)]
    answer = serving.client.scale({3: 1})
    assert [c.start for c in answer.changes] == [False, False]
    controlled.tick()
    states = [r.state for r in serving.client.status().experts[3].replicas]
    assert sorted(states) == [READY, pb.REPLICA_STATE_DRAINING, pb.REPLICA_STATE_DRAINING]


def test_a_change_bound_to_another_revision_is_aborted(serving: Serving, controlled: Controller) -> None:
    refused = failure(lambda: serving.client.cluster.ScaleExperts(scale_request({0: 2}, expected_revision=5)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "REVISION_MOVED")
    assert "revision 1, not 5" in refused.text


def test_all_that_is_wrong_with_a_change_is_said_at_once(serving: Serving, controlled: Controller) -> None:
    wanted = [
        pb.ExpertScale(expert=8, replica_count=1),
        pb.ExpertScale(expert=1, replica_count=0),
        pb.ExpertScale(expert=1, replica_count=2),
    ]
    refused = failure(lambda: serving.client.cluster.ScaleExperts(pb.ScaleExpertsRequest(experts=wanted)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert refused.fields == ["experts[0].expert", "experts[1].replica_count", "experts[2].expert"]
    refused = failure(lambda: serving.client.cluster.ScaleExperts(pb.ScaleExpertsRequest()))
    assert refused.fields == ["experts"]


def test_without_a_controller_replicas_are_fixed_but_the_load_is_there(serving: Serving) -> None:
    refused = failure(lambda: serving.client.scale({0: 2}))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REPLICAS_FIXED")
    status = serving.client.status()
    assert [e.desired_replica_count for e in status.experts] == [1] * 8 and status.heads[0].state == READY
    assert all([(r.replica, r.state) for r in e.replicas] == [(0, READY)] for e in status.experts)
    assert not status.HasField("policy")
    whole = pb.ScalingPolicy(
        min_replica_count=1, max_replica_count=2, max_total_replica_count=16, scale_up_utilization=0.7
    )
    whole.scale_down_utilization = 0.2
    request = pb.SetScalingPolicyRequest(policy=whole)
    assert failure(lambda: serving.client.cluster.SetScalingPolicy(request)).reason == "REPLICAS_FIXED"
    assert failure(lambda: serving.client.drain("n0")).reason == "REPLICAS_FIXED"


def test_a_node_is_drained_and_shown_as_such(serving: Serving, controlled: Controller) -> None:
    serving.client.scale({3: 2})
    controlled.tick()
    controlled.tick()
    assert [r.node_id for r in serving.client.status().experts[3].replicas] == ["n0", "n1"]
    serving.client.drain("n1", 60.0)
    status = serving.client.status()
    assert [(n.id, n.state) for n in status.nodes] == [("n0", pb.Node.STATE_READY), ("n1", pb.Node.STATE_DRAINING)]
    serving.client.drain("n1", cancel=True)
    assert serving.client.status().nodes[1].state == pb.Node.STATE_READY


def test_nodes_that_cannot_be_drained_are_refused(serving: Serving, controlled: Controller) -> None:
    refused = failure(lambda: serving.client.drain("n7"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "NODE_NOT_FOUND")
    refused = failure(lambda: serving.client.drain("n0"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HEAD_NODE")
    assert failure(lambda: serving.client.drain("n1", -1.0)).fields == ["deadline"]


def test_the_scaling_policy_is_shown_and_changed(serving: Serving, controlled: Controller) -> None:
    before = serving.client.status().policy
    assert (before.enabled, before.max_replica_count, before.cooldown.seconds) == (False, 4, 30)
    after = serving.client.set_policy({"enabled": True, "max_replica_count": 2, "cooldown": 1.5})
    assert after == serving.client.status().policy
    assert (after.enabled, after.max_replica_count, after.min_replica_count) == (True, 2, 1)
    assert after.cooldown.ToMilliseconds() == 1500
    with pytest.raises(ValueError, match="no_such_field"):
        serving.client.set_policy({"no_such_field": 1})


def test_a_policy_that_makes_no_sense_is_refused_with_all_reasons(serving: Serving, controlled: Controller) -> None:
    refused = failure(lambda: serving.client.cluster.SetScalingPolicy(pb.SetScalingPolicyRequest()))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == [
        "policy.min_replica_count",
        "policy.max_total_replica_count",
        "policy.scale_up_utilization",
        "policy.scale_down_utilization",
    ]


def test_the_load_is_streamed(serving: Serving, controlled: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = serving.served.checkpoint.config.num_hidden_layers
    monkeypatch.setattr(serving.engine.statistics.counters, "expert_rows", ((7,) * 8,) * layers)
    stream = serving.client.watch_load(0.1)
    next(stream)
    serving.engine.statistics.counters.expert_rows = (tuple(7 + 10 * (e == 2) for e in range(8)),) * layers
    windows = [next(stream), next(stream)]
    stream.cancel()  # type: ignore[attr-defined]
    most = max(windows, key=lambda window: window.experts[2].token_count)
    assert most.experts[2].token_count == 10 * layers and most.experts[2].relative_load == 8.0
    assert [layer.layer for layer in most.layers] == list(range(layers))
    assert most.layers[1].experts[2].token_count == 10 and most.layers[1].experts[3].token_count == 0
    assert 0.1 <= most.window.ToMilliseconds() / 1000 < 5


def test_what_cannot_be_watched_is_refused(serving: Serving) -> None:
    request = pb.WatchExpertLoadRequest(layers=[0, 99])
    request.interval.FromMilliseconds(50)
    refused = failure(lambda: next(iter(serving.client.cluster.WatchExpertLoad(request))))
    assert refused.fields == ["interval", "layers[1]"]


def test_a_server_that_starts_says_so(demo: ServedModel) -> None:
    serving = Serving(demo)
    for call in (
        lambda: serving.client.status(),
        lambda: serving.client.scale({0: 1}),
        lambda: next(serving.client.watch_load(1)),
    ):
        refused = failure(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STARTING")
    serving.close()
