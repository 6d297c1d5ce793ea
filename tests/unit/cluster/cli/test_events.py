"""`eightwinds events`, and the events in `status`."""

import json

from cluster.cli.events import line_of
from cluster.observe.events import Kind
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.commands import run
from tests.serving import Serving


def test_events_are_lines_or_json(serving: Serving) -> None:
    events = serving.gateway.backend.events
    events.add(Kind.REPLICA_LOST, "its [node] is gone", expert=3, replica=1, node_id="0123456789abcdef")
    after = str(events.recent(1)[0].sequence - 1)
    ran = run("events", "--after", after, "--address", serving.address)
    assert ran.exit_code == 0
    assert "replica lost expert 3 replica 1 node 0123456789ab: its [node] is gone\n" in ran.stdout
    ran = run("events", "--after", after, "--json", "--address", serving.address)
    assert json.loads(ran.stdout)["kind"] == "KIND_REPLICA_LOST"


def test_status_shows_the_last_ones(serving: Serving) -> None:
    serving.gateway.backend.events.add(Kind.NODE_DRAINED, node_id="n9", requester="ops")
    ran = run("status", "--address", serving.address)
    assert "node drained node n9 by ops\n" in ran.stdout


def test_zero_is_an_expert_and_absence_is_none() -> None:
    assert " expert 0 replica 0" in line_of(pb.Event(sequence=1, expert=0, replica=0))
    assert "expert" not in line_of(pb.Event(sequence=1, kind=pb.Event.KIND_HEAD_LOST))


def test_a_server_that_is_not_there_is_an_exit_code() -> None:
    ran = run("events", "--address", "127.0.0.1:1")
    assert ran.exit_code == 10 + 14 and "eightwinds events:" in ran.stderr
