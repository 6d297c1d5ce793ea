"""What controller and autoscaler note in the event log."""

import dataclasses

from actors.replica import ReplicaId
from actors.usage import HeadUsage, ReplicaUsage
from cluster.control.autoscaler import Autoscaler
from cluster.control.controller import Controller
from cluster.observe.events import EventLog, Kind
from cluster.policy.replicas.lifecycle import State
from cluster.policy.replicas.scaling import ScalingPolicy
from tests.unit.cluster.control.test_controller import Rig


def told(log: EventLog) -> list[tuple[Kind, int | None, int | None, str]]:
    return [(e.kind, e.expert, e.replica, e.node_id) for e in log.after(0)]


def events_of(controller: Controller) -> EventLog:
    return controller._events


def test_a_replica_that_is_added_and_taken_away() -> None:
    rig = Rig(1)
    rig.controller.scale({0: 2})
    rig.tick(3)
    assert told(events_of(rig.controller)) == [(Kind.REPLICA_JOINED, 0, 1, "n0")]
    rig.controller.scale({0: 1})
    rig.tick(8)
    assert told(events_of(rig.controller))[1:] == [(Kind.REPLICA_RETIRED, 0, 1, "n0")]


def test_a_process_that_ends_and_comes_back() -> None:
    rig = Rig(2)
    rig.cluster.kill((0, 1))
    rig.tick(3)
    wanted = [(Kind.REPLICA_DIED, 0, 1, "n0"), (Kind.REPLICA_RESTARTED, 0, 1, "n0")]
    assert told(events_of(rig.controller)) == wanted


def test_a_watch_that_breaks_while_its_process_lives_is_no_death() -> None:
    rig = Rig(2)
    rig.cluster.cut_off((0, 1))
    rig.cluster.away[0, 1] = "no route"
    rig.tick()
    assert rig.states()[0, 1] is State.UNREACHABLE and rig.routed == {(0, 0)}
    rig.cluster.away.clear()
    rig.tick()
    assert rig.states()[0, 1] is State.READY and told(events_of(rig.controller)) == []


def test_a_process_that_dies_before_it_has_served_joins_and_did_not_restart() -> None:
    rig = Rig(1)
    rig.cluster.loading.add((0, 1))
    rig.controller.scale({0: 2})
    rig.tick(2)
    rig.cluster.kill((0, 1))
    rig.tick(1)
    rig.cluster.loading.clear()
    rig.tick(4)
    assert told(events_of(rig.controller))[-1] == (Kind.REPLICA_JOINED, 0, 1, "n0")


def test_a_replica_that_is_lost_with_its_node() -> None:
    rig = Rig(2, nodes=("n0", "n1"))
    rig.cluster.machines[0] = dataclasses.replace(rig.cluster.machines[0], alive=False)
    rig.cluster.lose((0, 0))
    rig.tick(4)
    log = events_of(rig.controller)
    assert told(log) == [
        (Kind.NODE_LOST, None, None, "n0"),
        (Kind.REPLICA_DIED, 0, 0, "n0"),
        (Kind.REPLICA_LOST, 0, 0, "n0"),
        (Kind.REPLICA_RESTARTED, 0, 0, "n1"),
    ]
    assert log.after(0)[2].cause == "its node is gone"
    rig.tick(50, seconds=1.0)
    rig.controller.snapshot()
    assert len(told(log)) == 4, "a node is lost once"


def test_a_replica_that_cannot_be_started_has_the_reason() -> None:
    rig = Rig(1)
    rig.cluster.errors[0, 1] = "OSError: gone"
    rig.controller.scale({0: 2})
    rig.tick(3)
    (event,) = events_of(rig.controller).after(0)
    assert event.kind is Kind.REPLICA_FAILED and "OSError: gone" in event.cause


def test_a_process_that_dies_and_whose_successor_cannot_load() -> None:
    rig = Rig(1)
    rig.cluster.kill((0, 0))
    rig.cluster.errors[0, 0] = "OSError: gone"
    rig.tick()
    wanted = [(Kind.REPLICA_DIED, 0, 0, "n0"), (Kind.REPLICA_FAILED, 0, 0, "n0")]
    assert told(events_of(rig.controller)) == wanted


def test_a_process_that_dies_and_whose_successor_finds_no_room() -> None:
    rig = Rig(2)
    rig.cluster.kill((0, 0))
    rig.cluster.away[0, 0] = "it waits for room"
    rig.tick(3, seconds=200.0)
    kinds = [kind for kind, *_ in told(events_of(rig.controller))]
    assert kinds[:2] == [Kind.REPLICA_DIED, Kind.REPLICA_FAILED]


def test_a_drain_that_is_taken_back() -> None:
    rig = Rig(1, nodes=("n1", "n0"))  # the head is on n1
    rig.cluster.held = {(0, index) for index in range(9)}
    rig.controller.drain_node("n0", 5.0)
    rig.tick(2, seconds=4.0)
    (event,) = events_of(rig.controller).after(0)
    assert event.kind is Kind.NODE_RESTORED and event.node_id == "n0" and "could not be moved in time" in event.cause


def test_an_unusual_number_of_hedges() -> None:
    rig = Rig(1, 1)
    first, second = ReplicaId(1, 0), ReplicaId(1, 1)
    usage = HeadUsage("h", {first: ReplicaUsage(calls=40), second: ReplicaUsage(calls=60)}, {}, [0, 0], [0, 0])
    later = dataclasses.replace(usage, replicas={first: ReplicaUsage(calls=140)}, hedges=[0, 30])
    for now in (usage, later, later, later):
        rig.cluster.usage = lambda now=now: now  # type: ignore[method-assign, misc]
        assert rig.controller.usage() is now
    (event,) = events_of(rig.controller).after(0)
    assert (event.kind, event.expert) == (Kind.EXPERT_HEDGED, 1)
    assert event.cause == "30 hedges among 40 calls within a minute"


def test_the_autoscaler_says_who_scaled_and_why() -> None:
    rig, log = Rig(1), EventLog()
    policy = ScalingPolicy(True, 1, 3, 6, 0.7, 0.2, cooldown=10.0)
    autoscaler = Autoscaler(rig.controller, policy, lambda: rig.now, events=log)
    rig.cluster.busy_seconds[0, 0] = 0.0
    autoscaler.look()
    rig.now += 5.0
    rig.cluster.busy_seconds[0, 0] = 4.5
    assert autoscaler.look() == {0: 2}
    (event,) = log.after(0)
    assert (event.kind, event.expert, event.requester) == (Kind.EXPERT_SCALED, 0, "autoscaler")
    assert event.cause == "1 -> 2 replicas, 90 % busy"
