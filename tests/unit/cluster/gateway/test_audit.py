"""Every change by an operator is a line: who, from where, what, and what came of it."""

import logging

import pytest

from cluster.control.controller import Controller
from cluster.gateway.audit import audited
from cluster.gateway.auth import Caller
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.serving import Serving, failure


def test_a_change_is_a_line(controlled: Controller, serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "eightwinds.audit"):
        serving.client.scale({3: 2})
        serving.client.set_policy({"enabled": True})
        serving.client.status()
    lines = [record.getMessage() for record in caplog.records if record.name == "eightwinds.audit"]
    assert len(lines) == 2, "looking changes nothing"
    assert lines[0].startswith("caller=- peer=ipv4:127.0.0.1:")
    assert lines[0].endswith(" ScaleExperts {experts { expert: 3 replica_count: 2 }} done")
    assert " SetScalingPolicy {policy { enabled: true " in lines[1]


def test_a_refused_change_is_a_line_with_the_reason(
    controlled: Controller, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "eightwinds.audit"):
        failure(lambda: serving.client.scale({99: 2}))
        failure(lambda: serving.client.cluster.DrainNode(pb.DrainNodeRequest(node_id="n" * 5000)))
    lines = [record.getMessage() for record in caplog.records if record.name == "eightwinds.audit"]
    assert lines[0].endswith("refused: INVALID_FIELDS")
    assert lines[1].endswith("refused: NODE_NOT_FOUND") and len(lines[1]) < 700


def test_the_line_names_the_caller_and_a_change_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    caller = Caller("ops", peer="ipv4:10.0.0.1:5000")
    caplog.set_level(logging.INFO, "eightwinds.audit")
    with pytest.raises(ZeroDivisionError), audited(pb.DrainNodeRequest(node_id="a"), caller):
        raise ZeroDivisionError
    assert caplog.messages == ['caller=ops peer=ipv4:10.0.0.1:5000 DrainNode {node_id: "a"} failed']
