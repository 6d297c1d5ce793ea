"""WatchEvents and the events in GetStatus."""

import grpc

from cluster.control.controller import Controller
from cluster.engine.served_model import ServedModel
from cluster.observe.events import Event, EventLog, Kind
from cluster.settings.sections import LimitsSection
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.engines import engine_bounds
from tests.fakes import FakeHead
from tests.serving import Serving, failure

HERE = "ipv4:127.0.0.1"  # as gRPC writes the address of a caller without a token


def last(log: EventLog) -> int:
    return max((event.sequence for event in log.recent(1)), default=0)


def test_what_operators_ask_for_is_told_with_the_requester(serving: Serving, controlled: Controller) -> None:
    before = last(serving.gateway.backend.events)
    serving.client.scale({3: 2}, validate_only=True)
    serving.client.scale({3: 2})
    controlled.tick()
    controlled.tick()
    serving.client.drain("n1", 60.0)
    for _ in range(2):  # the second has nothing to cancel
        serving.client.drain("n1", cancel=True)
    serving.client.set_policy({"enabled": True})
    found = list(serving.client.events(before))
    assert [(e.kind, e.node_id) for e in found] == [
        (pb.Event.KIND_EXPERT_SCALED, ""),
        (pb.Event.KIND_REPLICA_JOINED, "n1"),
        (pb.Event.KIND_NODE_DRAINED, "n1"),
        (pb.Event.KIND_NODE_RESTORED, "n1"),
        (pb.Event.KIND_POLICY_CHANGED, ""),
    ]
    assert [e.sequence for e in found] == list(range(before + 1, before + 6))
    assert (found[0].expert, found[0].HasField("replica"), found[0].cause) == (3, False, "2 replicas wanted")
    assert [e.requester for e in found] == [HERE, "", HERE, HERE, HERE]
    assert abs(found[0].event_time.ToDatetime().timestamp() - found[4].event_time.ToDatetime().timestamp()) < 60
    shown = serving.client.status().events
    assert len(shown) <= 10 and list(shown)[-5:] == found


def test_a_change_that_is_refused_is_no_event(serving: Serving) -> None:
    before = last(serving.gateway.backend.events)
    assert failure(lambda: serving.client.scale({0: 2})).reason == "REPLICAS_FIXED"
    assert list(serving.client.events(before)) == []


def test_a_reader_that_follows_gets_what_comes(serving: Serving) -> None:
    events = serving.gateway.backend.events
    events.add(Event(Kind.HEAD_LOST, "its node is gone"))
    stream = serving.client.events(last(events) - 1, follow=True)
    assert next(stream).cause == "its node is gone"
    events.add(Event(Kind.HEAD_RESTARTED))
    assert next(stream).kind == pb.Event.KIND_HEAD_RESTARTED
    stream.close()  # type: ignore[attr-defined]


def test_a_wrong_number_is_refused(serving: Serving) -> None:
    assert failure(lambda: list(serving.client.events(-1))).fields == ["after_sequence"]


def test_watches_are_bounded_together_with_those_of_load(demo: ServedModel, head: FakeHead) -> None:
    server = Serving(demo, limits=LimitsSection(watches=1))
    assert failure(lambda: list(server.client.events())).reason == "STARTING"
    server.ready(head, engine_bounds(window=head.window))
    server.gateway.backend.events.add(Event(Kind.HEAD_LOST))
    stream = server.client.events(follow=True)
    next(stream)
    for call in (lambda: list(server.client.events()), lambda: list(server.client.watch_load(1.0))):
        refused = failure(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
    server.close()
