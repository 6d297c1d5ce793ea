"""What a round decides, and what it makes of what came of it."""

import math
from collections.abc import Mapping

from actors.replica import ReplicaId
from actors.vitals import NodeInfo, Pulse, Vitals
from cluster.policy.replicas.lifecycle import ReplicaOptions, State
from cluster.policy.replicas.membership import Actions, Facts, Membership
from cluster.policy.replicas.reconcile import Change
from tests.unit.cluster.policy.replicas.test_membership import A, B, C, pulse, running, states

NODES = [NodeInfo("n0", "", True), NodeInfo("n1", "", True)]


def carried_out(membership: Membership, actions: Actions, now: float) -> Actions:
    """All has succeeded."""
    membership.done(actions, actions.stop, [change.id for change in actions.start])
    if actions.publish is not None:
        membership.told(actions.publish, (), now)
    membership.check()
    return actions


def round_of(membership: Membership, now: float, **facts: object) -> Actions:
    """A round in which all succeeds."""
    return carried_out(membership, membership.update(Facts(nodes=NODES, **facts), now), now)  # type: ignore[arg-type]


def answers(pulses: Mapping[ReplicaId, Pulse]) -> Vitals:
    return Vitals(pulses)


def test_a_round_starts_what_is_wanted_on_the_emptiest_node_and_publishes_it_when_it_has_loaded() -> None:
    m = running(1)
    m.scale({0: 2})
    assert round_of(m, 1.0).start == [Change(B, "n1", True)]
    loaded = round_of(m, 2.0, vitals=answers({B: pulse("b", "n1")}))
    assert loaded.publish == {A: "a", B: "b"} and states(m)[B] is State.READY and m.settled()


def test_a_round_that_has_not_seen_the_nodes_starts_nothing() -> None:
    m = running(1)
    m.scale({0: 2})
    assert m.update(Facts(), 1.0).start == [] and B not in m.members


def test_a_round_starts_nothing_on_an_avoided_or_dead_node() -> None:
    m = running(1)
    m.scale({0: 2})
    m.desired.drain("n1", math.inf)
    actions = m.update(Facts(nodes=[*NODES, NodeInfo("n2", "", False)]), 1.0)
    assert actions.start == [Change(B, "n0", True)], "the other two are emptier"
    assert actions.avoided == {"n1"}, "Ray shall not choose it either"


def test_a_replica_does_not_join_before_the_head_has_answered() -> None:
    m = running(1)
    m.scale({0: 2})
    round_of(m, 1.0)
    for now in (2.0, 3.0):
        actions = m.update(Facts(vitals=answers({B: pulse("b", "n1")})), now)
        assert actions.publish == {A: "a", B: "b"}, "it is told again"
        assert m.told(actions.publish, None, now) == []
        assert states(m)[B] is State.STARTING and m.members[B].failures == 0


def test_a_node_is_left_only_after_the_successor_has_joined() -> None:
    m = running(1)
    m.desired.drain("n0", math.inf)
    round_of(m, 1.0)
    assert states(m) == {A: State.READY, B: State.STARTING}
    round_of(m, 2.0, vitals=answers({B: pulse("b", "n1", loaded=False)}))
    assert states(m)[A] is State.READY, "its successor loads"
    round_of(m, 3.0, vitals=answers({B: pulse("b", "n1")}))
    assert states(m) == {A: State.READY, B: State.READY}
    assert round_of(m, 4.0).publish == {B: "b"} and states(m)[A] is State.RETIRING


def test_a_retired_replica_ends_when_the_head_does_not_reach_it_and_it_has_no_rows() -> None:
    m = running(2)
    m.scale({0: 1})
    actions = m.update(Facts(), 1.0)
    assert actions.publish == {A: "a"}
    m.told(actions.publish, None, 1.0)  # the head does not answer
    assert round_of(m, 2.0, queued_rows={}).stop == [], "the head may route to it still"
    assert round_of(m, 3.0, queued_rows={B: 5}).stop == [], "it is at work"
    assert round_of(m, 4.0).stop == [], "whether it is at work is not known"
    assert round_of(m, 5.0, queued_rows={}).stop == [B] and states(m) == {A: State.READY}


def test_a_retired_replica_has_a_moment_for_calls_on_their_way_and_not_for_ever() -> None:
    m = running(3, options=ReplicaOptions(retire_timeout=30.0))
    m.scale({0: 2})
    round_of(m, 1.0)
    assert round_of(m, 1.2, queued_rows={}).stop == []
    assert round_of(m, 31.0, queued_rows={ReplicaId(0, 2): 1}).stop == []
    assert round_of(m, 31.1, queued_rows={ReplicaId(0, 2): 1}).stop == [ReplicaId(0, 2)]


def test_a_lost_replica_is_stopped_and_replaced_in_one_round() -> None:
    m = running(2)
    actions = round_of(m, 1.0, ended=[A], vitals=Vitals(lost={A: "its node is gone"}))
    assert (actions.stop, actions.start, actions.publish) == ([A], [Change(A, "n1", True)], {B: "a"})


def test_a_replica_that_cannot_load_is_given_up_with_the_reason_and_tried_again_after_a_pause() -> None:
    m = running(1)
    m.put(m.members[A].ended(0.0))
    actions = round_of(m, 1.0, vitals=answers({A: pulse("b", error="OSError: gone")}))
    assert actions.given_up == {A: "replica 0 was not started: it could not load: OSError: gone"}
    assert actions.stop == [A] and actions.start == [] and actions.publish == {}
    assert round_of(m, 5.9).start == [] and round_of(m, 6.0).start == [Change(A, "n0", True)]


def test_an_operator_who_scales_again_ends_the_pause() -> None:
    m = running(1)
    m.scale({0: 2})
    round_of(m, 1.0)
    round_of(m, 2.0, vitals=answers({B: pulse("b", error="OSError: gone")}))
    assert m.desired.counts == (1,)
    m.scale({0: 2}, afresh=False)
    assert round_of(m, 3.0).start == [], "the autoscaler waits"
    m.scale({0: 2})
    assert round_of(m, 3.0).start == [Change(B, "n1", True)]


def test_a_replica_that_could_not_be_stopped_is_stopped_in_the_next_round_before_another_starts_there() -> None:
    m = running(2)
    actions = m.update(Facts(nodes=NODES, vitals=Vitals(lost={A: "gone"})), 1.0)
    m.done(actions, stopped=(), started=())  # Ray has failed with the first action
    assert A not in m.members and not m.settled()
    actions = round_of(m, 2.0)
    assert (actions.stop, actions.start) == ([A], [Change(A, "n1", True)])
    assert m.members[A].restarts == 1 and round_of(m, 3.0).stop == [], "its past is not forgotten"


def test_a_start_that_fails_does_not_undo_what_an_operator_has_asked_for_meanwhile() -> None:
    m = running(1)
    m.scale({0: 2})
    round_of(m, 1.0)
    actions = m.update(Facts(nodes=NODES, vitals=Vitals(lost={B: "ValueError: no"})), 2.0)
    assert actions.start == [Change(B, "n1", True)] and m.members[B].failures == 1
    m.scale({0: 2})  # before Ray has failed to start it
    m.done(actions, actions.stop, started=())
    round_of(m, 3.0)
    assert m.members[B].failures == 0, "its failures were forgotten"


def test_a_start_that_fails_keeps_what_the_replica_has_been_through() -> None:
    m = running(2)
    for now in (1.0, 2.0):
        actions = m.update(Facts(nodes=NODES, vitals=Vitals(lost={A: "gone"} if now == 1.0 else {})), now)
        m.done(actions, actions.stop, started=())
    round_of(m, 3.0)
    assert m.members[A].restarts == 1 == m.restarts[0] and m.members[A].served
    m.members.pop(A)
    round_of(m, 4.0)
    assert m.members[A].restarts == 0, "it is handed over once"


def test_a_cold_replica_is_given_up_after_a_few_warm_up_calls() -> None:
    m = running(1)
    m.scale({0: 2})
    round_of(m, 0.0)
    for now in (1.0, 6.0, 16.0):
        actions = m.update(Facts(vitals=answers({B: pulse("b", "n1")})), now)
        assert actions.publish == {A: "a", B: "b"} and states(m)[B] is State.STARTING
        m.told(actions.publish, [B], now)
    assert m.update(Facts(), 16.1).given_up[B].endswith("3 times before it was ready: it did not answer a warm-up call")


def test_facts_about_replicas_that_are_gone_are_ignored() -> None:
    m = running(1)
    gone = Vitals({B: pulse()}, {C: "lost"}, {ReplicaId(0, 9): "away"})
    assert round_of(m, 1.0, ended=[B], vitals=gone).stop == [] and states(m) == {A: State.READY}
