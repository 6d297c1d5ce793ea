"""`status`, `scale` and `top` in front of a server whose replicas are a test's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import terminal_operations
from cluster.cli.app import app
from cluster.control.controller import Controller
from cluster.policy.replicas import membership
from cluster.policy.replicas.lifecycle import State
from tests.clusters import FakeCluster
from tests.serving import Serving


@pytest.fixture
def ticking(controlled: Controller) -> Iterator[Controller]:
    """Its rounds run by themselves."""
    controlled.start()
    yield controlled
    controlled.stop()


def test_status_shows_tables_and_notes(
    serving: Serving, controlled: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controlled._membership.desired.notes[4] = "replica 1 was not started: no [node]"
    assert terminal_operations.status(serving.client) == 0
    said = capsys.readouterr().out
    assert "expert 4: replica 1 was not started: no [node]" in said
    assert "0:ready" in said and "0 running, 0 waiting; placement revision 1" in said
    assert terminal_operations.status(serving.client, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["experts"]) == 8 and found["experts"][0]["replicas"][0]["state"] == "REPLICA_STATE_READY"


def test_scale_waits_until_it_is_done(
    serving: Serving, ticking: Controller, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal_operations, "_LOOK_SECONDS", 0.02)
    assert terminal_operations.scale(serving.client, [3], 2) == 0
    said = capsys.readouterr()
    assert "expert 3: start a replica on node n1" in said.out and "done: 1 expert with 2 ready" in said.out
    assert terminal_operations.scale(serving.client, None, 1) == 0
    assert "done: 8 experts with 1 ready" in capsys.readouterr().out


def test_scale_says_why_it_was_taken_back(
    serving: Serving,
    ticking: Controller,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(terminal_operations, "_LOOK_SECONDS", 0.02)
    cluster.errors[3, 1] = "OSError: the disk is gone"
    assert terminal_operations.scale(serving.client, [3], 2) == 1
    assert "expert 3 keeps 1: replica 1 was not started: it could not load: OSError" in capsys.readouterr().err


def test_a_dry_run_changes_nothing(
    serving: Serving, controlled: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    assert terminal_operations.scale(serving.client, [0, 1], 2, dry_run=True) == 0
    assert capsys.readouterr().out.count("start a replica") == 2
    assert {m.state for m in controlled.snapshot().members} == {State.READY} and controlled.snapshot().revision == 1


def test_top_shows_every_expert(serving: Serving, controlled: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal_operations.top(serving.client, 0.1, count=2) == 0
    said = capsys.readouterr().out
    assert said.count("Load of the experts in the last") == 2 and said.count("relative") == 2


def test_exit_codes(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal_operations.scale(serving.client, [0], 2) == 10 + 9
    assert "transport=local" in capsys.readouterr().err
    assert terminal_operations.scale(serving.client, [99], 2) == 10 + 3
    assert terminal_operations.top(serving.client, 0.01) == 10 + 3


def test_the_commands_reach_them(serving: Serving) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["status", "--address", serving.address]).exit_code == 0
    assert runner.invoke(app, ["scale", "all", "2", "--address", serving.address]).exit_code == 19
    assert runner.invoke(app, ["scale", "0,x", "2"]).exit_code == 2
    assert runner.invoke(app, ["top", "--count", "1", "--interval", "0.1", "--address", serving.address]).exit_code == 0


def test_the_policy_is_shown_and_changed_from_a_file(serving: Serving, controlled: Controller, tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "policy.yaml"
    shown = runner.invoke(app, ["policy", "--address", serving.address])
    assert shown.exit_code == 0 and "enabled: false\n" in shown.output and "cooldown: 30\n" in shown.output
    file.write_text("enabled: true\ncooldown: 5\n")
    assert "enabled: true" in runner.invoke(app, ["policy", str(file), "--address", serving.address]).output
    file.write_text("min_replica_count: 0\n")
    assert runner.invoke(app, ["policy", str(file), "--address", serving.address]).exit_code == 13
    file.write_text("minimum: 1\n")
    assert runner.invoke(app, ["policy", str(file), "--address", serving.address]).exit_code == 2
    for text in ("", "[1]", "{"):
        file.write_text(text)
        assert runner.invoke(app, ["policy", str(file)]).exit_code == 2
    assert runner.invoke(app, ["policy", str(tmp_path / "none")]).exit_code == 2


def test_drain_waits_until_the_node_is_empty(
    serving: Serving, ticking: Controller, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal_operations, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(membership, "_SETTLE_SECONDS", 0.0)
    assert terminal_operations.scale(serving.client, [3], 2) == 0
    assert terminal_operations.drain(serving.client, "n1", 60.0) == 0
    said = capsys.readouterr()
    assert "1 replicas on the node" in said.err and "done: no replica is on the node" in said.out
    assert terminal_operations.drain(serving.client, "n1", None, cancel=True) == 0
    assert terminal_operations.drain(serving.client, "n", None) == 2
    assert terminal_operations.drain(serving.client, "n0", None) == 10 + 9


def test_a_drain_that_is_taken_back_exits_with_1(
    serving: Serving,
    ticking: Controller,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(terminal_operations, "_LOOK_SECONDS", 0.02)
    assert terminal_operations.scale(serving.client, [3], 2) == 0
    cluster.held = {(3, slot) for slot in range(9)}
    assert terminal_operations.drain(serving.client, "n1", 0.3) == 1
    assert "taken back with 1 replicas there" in capsys.readouterr().err
