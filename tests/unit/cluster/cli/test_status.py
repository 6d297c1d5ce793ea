"""`status` and `top` in front of a server whose replicas are a test's."""

import json

import pytest

from actors.replica import ReplicaId
from cluster.cli.status import line_of, state_of
from cluster.control.controller import Controller
from cluster.observe.events import Event, Kind
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.commands import run
from tests.serving import Serving


def test_status_shows_tables_and_notes(serving: Serving, controlled: Controller) -> None:
    controlled._membership.desired.failed(ReplicaId(4, 1), "replica 1 was not started: no [node]", 0.0)
    shown = run("status", "--address", serving.address)
    assert shown.exit_code == 0 and "expert 4: replica 1 was not started: no [node]" in shown.stdout
    assert "Heads" in shown.stdout and "n0" in shown.stdout.partition("Heads")[2].partition("Experts")[0]
    assert "0:ready" in shown.stdout and "0 running, 0 waiting; placement revision 1" in shown.stdout
    as_json = run("status", "--json", "--address", serving.address)
    found = json.loads(as_json.stdout)
    assert as_json.exit_code == 0 and len(found["experts"]) == 8
    assert found["experts"][0]["replicas"][0]["state"] == "REPLICA_STATE_READY"


def test_status_of_fixed_replicas(serving: Serving) -> None:
    assert run("status", "--address", serving.address).exit_code == 0


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (pb.Replica(state=pb.REPLICA_STATE_UNREACHABLE), "unreachable"),
        (pb.Replica(), "unspecified"),
        (pb.Node(state=pb.Node.STATE_DRAINING), "draining"),
        (pb.HeadStatus(state=pb.REPLICA_STATE_READY), "ready"),
    ],
)
def test_a_state_is_a_word(message: object, word: str) -> None:
    assert state_of(message) == word


def test_top_shows_every_expert(serving: Serving, controlled: Controller) -> None:
    shown = run("top", "--interval", "0.1", "--count", "2", "--address", serving.address)
    assert shown.exit_code == 0
    assert shown.stdout.count("Load of the experts in the last") == 2 and shown.stdout.count("relative") == 2


def test_events_are_lines_or_json(serving: Serving) -> None:
    events = serving.gateway.backend.events
    events.add(Event(Kind.REPLICA_LOST, "its [node] is gone", expert=3, replica=1, node_id="0123456789abcdef"))
    after = str(events.recent(1)[0].sequence - 1)
    ran = run("events", "--after", after, "--address", serving.address)
    assert ran.exit_code == 0
    assert "replica lost expert 3 replica 1 node 0123456789ab: its [node] is gone\n" in ran.stdout
    ran = run("events", "--after", after, "--json", "--address", serving.address)
    assert json.loads(ran.stdout)["kind"] == "KIND_REPLICA_LOST"


def test_status_shows_the_last_ones(serving: Serving) -> None:
    serving.gateway.backend.events.add(Event(Kind.NODE_DRAINED, node_id="n9", requester="ops"))
    ran = run("status", "--address", serving.address)
    assert "node drained node n9 by ops\n" in ran.stdout


def test_zero_is_an_expert_and_absence_is_none() -> None:
    assert " expert 0 replica 0" in line_of(pb.Event(sequence=1, expert=0, replica=0))
    assert "expert" not in line_of(pb.Event(sequence=1, kind=pb.Event.KIND_HEAD_LOST))


def test_a_server_that_is_not_there_is_an_exit_code() -> None:
    ran = run("events", "--address", "127.0.0.1:1")
    assert ran.exit_code == 10 + 14 and "eightwinds events:" in ran.stderr
