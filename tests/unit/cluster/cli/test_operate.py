"""`scale`, `drain` and `policy` in front of a server whose replicas are a test's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cli import operate
from cluster.client.client import Client
from cluster.control.controller import Controller
from cluster.policy.replicas import membership
from cluster.policy.replicas.lifecycle import State
from tests.clusters import FakeCluster
from tests.commands import run
from tests.serving import Serving


@pytest.fixture
def ticking(controlled: Controller, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    """Its rounds run by themselves, and commands look often."""
    monkeypatch.setattr(operate, "_LOOK_SECONDS", 0.02)
    controlled.start()
    yield controlled
    controlled.stop()


def test_scale_waits_until_it_is_done(serving: Serving, ticking: Controller) -> None:
    more = run("scale", "3", "2", "--address", serving.address)
    assert more.exit_code == 0
    assert "expert 3: start a replica on node n1" in more.stdout and "done: 1 expert with 2 ready" in more.stdout
    back = run("scale", "all", "1", "--address", serving.address)
    assert back.exit_code == 0 and "done: 8 experts with 1 ready" in back.stdout


def test_scale_says_why_it_was_taken_back(serving: Serving, ticking: Controller, cluster: FakeCluster) -> None:
    cluster.errors[3, 1] = "OSError: the disk is gone"
    taken_back = run("scale", "3", "2", "--address", serving.address)
    assert taken_back.exit_code == 1
    assert "eightwinds scale: taken back: expert 3 keeps 1: replica 1 was not started" in taken_back.stderr
    assert "it could not load: OSError" in taken_back.stderr


def test_a_dry_run_changes_nothing(serving: Serving, controlled: Controller) -> None:
    dry = run("scale", "0,1", "2", "--dry-run", "--address", serving.address)
    assert dry.exit_code == 0 and dry.stdout.count("start a replica") == 2
    assert {m.state for m in controlled.snapshot().members} == {State.READY} and controlled.snapshot().revision == 1


def test_what_is_as_wanted_is_not_changed_or_watched(serving: Serving, controlled: Controller) -> None:
    assert "nothing to change" in run("scale", "0", "1", "--no-wait", "--address", serving.address).stdout


def test_ctrl_c_ends_the_command_and_not_the_change(
    serving: Serving, controlled: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(client: Client, *arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(operate, "_follow_scaling", pressed)
    ended = run("scale", "3", "2", "--address", serving.address)
    assert (ended.exit_code, ended.stderr) == (130, "eightwinds scale: the change goes on without being watched\n")
    assert controlled.snapshot().revision == 2


def test_a_refused_scaling_exits_with_ten_plus_the_status(serving: Serving) -> None:
    fixed = run("scale", "0", "2", "--address", serving.address)
    assert fixed.exit_code == 10 + 9 and fixed.stderr.startswith("eightwinds scale: FAILED_PRECONDITION")
    assert "runtime=in_process" in fixed.stderr
    assert run("scale", "all", "2", "--address", serving.address).exit_code == 10 + 9
    assert run("scale", "99", "2", "--address", serving.address).exit_code == 10 + 3
    assert run("scale", "0,x", "2").exit_code == 2


def test_drain_waits_until_the_node_is_empty(
    serving: Serving, ticking: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_SETTLE_SECONDS", 0.0)
    at = ("--address", serving.address)
    assert run("scale", "3", "2", *at).exit_code == 0
    drained = run("drain", "n1", "--deadline", "60", *at)
    assert drained.exit_code == 0
    assert "1 replicas on the node" in drained.stderr and "done: no replica is on the node" in drained.stdout
    assert run("drain", "n1", "--cancel", *at).exit_code == 0
    ambiguous = run("drain", "n", *at)
    assert ambiguous.exit_code == 2 and "eightwinds drain: 2 nodes begin with 'n'" in ambiguous.stderr
    assert run("drain", "n0", *at).exit_code == 10 + 9


def test_a_drain_that_is_taken_back_exits_with_1(serving: Serving, ticking: Controller, cluster: FakeCluster) -> None:
    assert run("scale", "3", "2", "--address", serving.address).exit_code == 0
    cluster.held = {(3, slot) for slot in range(9)}
    taken_back = run("drain", "n1", "--deadline", "0.3", "--address", serving.address)
    assert taken_back.exit_code == 1 and "taken back with 1 replicas there" in taken_back.stderr


def test_the_policy_is_shown_and_changed_from_a_file(serving: Serving, controlled: Controller, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    shown = run("policy", "--address", serving.address)
    assert shown.exit_code == 0 and "enabled: false\n" in shown.output and "cooldown: 30\n" in shown.output
    file.write_text("enabled: true\ncooldown: 5\n")
    assert "enabled: true" in run("policy", str(file), "--address", serving.address).output
    file.write_text("min_replica_count: 0\n")
    assert run("policy", str(file), "--address", serving.address).exit_code == 13
    file.write_text("minimum: 1\n")
    assert run("policy", str(file), "--address", serving.address).exit_code == 2
    for text in ("", "[1]", "{"):
        file.write_text(text)
        assert run("policy", str(file)).exit_code == 2
    assert run("policy", str(tmp_path / "none")).exit_code == 2
