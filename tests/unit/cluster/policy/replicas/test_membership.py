"""The replicas that there are and should be."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.replica import ReplicaId
from actors.vitals import Pulse
from cluster.policy.replicas.lifecycle import ReplicaOptions, State
from cluster.policy.replicas.membership import Facts, Membership
from cluster.policy.replicas.reconcile import Change
from model.batch import LoadProgress

A, B, C = ReplicaId(0, 0), ReplicaId(0, 1), ReplicaId(1, 0)


def pulse(incarnation: str = "a", node_id: str = "n0", loaded: bool = True, error: str = "") -> Pulse:
    return Pulse(incarnation, 7, node_id, LoadProgress(0, 1, loaded, error))


def running(*counts: int, options: ReplicaOptions | None = None) -> Membership:
    """So many ready replicas of each expert, whose incarnation is "a", on node n0."""
    membership = Membership(counts, options)
    ids = [ReplicaId(expert, index) for expert, count in enumerate(counts) for index in range(count)]
    membership.adopt(dict.fromkeys(ids, pulse()), 0.0)
    return membership


def ready(membership: Membership, replica_id: ReplicaId, incarnation: str = "a") -> None:
    if replica_id not in membership.members:
        membership.begin(replica_id, "n0", 0.0)
    membership.put(membership.members[replica_id].answered(pulse(incarnation), 0.0).joined(0.0))


def states(membership: Membership) -> dict[ReplicaId, State]:
    return {replica_id: member.state for replica_id, member in sorted(membership.members.items())}


# ---- adoption, and what is routed to ----


def test_adopted_replicas_are_ready_and_the_head_is_told_nothing() -> None:
    m = running(2, 1)
    assert states(m) == dict.fromkeys([A, B, C], State.READY) and m.restarts == [0, 0]
    assert m.members[B].served and m.members[B].node_id == "n0" and m.unserved() == []
    assert m.update(Facts(), 1.0).publish is None and m.settled()


def test_a_replica_that_joins_is_routed_to_once_its_weights_are_there() -> None:
    m = running(1)
    m.begin(B, "", 0.0)
    m.put(m.members[B].answered(pulse("b", "n1", loaded=False), 1.0))
    assert m.routed() == {A: "a"} and m.to_ask() == [B]
    m.put(m.members[B].answered(pulse("b", "n1"), 2.0))
    assert m.routed() == {A: "a", B: "b"} and states(m)[B] is State.STARTING
    m.put(m.members[B].joined(3.0))
    assert states(m)[B] is State.READY and m.members[B].node_id == "n1" and m.to_ask() == []


def test_a_process_that_ended_is_routed_to_only_if_there_is_no_other_and_comes_back_as_a_restart() -> None:
    m = running(2, 1)
    for replica_id in (A, C):
        m.put(m.members[replica_id].ended(1.0))
    assert m.routed() == {B: "a", C: "a"} and m.unserved() == [1]
    for replica_id in (A, C):
        m.put(m.members[replica_id].answered(pulse("b", loaded=False), 2.0))
    assert states(m) == {A: State.STARTING, B: State.READY, C: State.STARTING}
    assert m.routed() == {B: "a"}, "what loads its weights is not waited for"
    for replica_id in (A, C):
        ready(m, replica_id, "b")
    assert m.routed() == {A: "b", B: "a", C: "b"}
    assert [m.members[r].restarts for r in sorted(m.members)] == [1, 0, 1] and m.restarts == [1, 1]


def test_a_replica_whose_process_has_just_ended_is_asked_unless_it_is_retired() -> None:
    m = running(3)
    m.put(m.members[B].retired(0.0))
    assert m.to_ask([A, B]) == [A]


# ---- failures and what they leave behind ----


def test_a_lost_replica_is_started_again_with_its_index_and_counts_as_a_restart() -> None:
    m = running(2)
    m.put(m.members[A].lost("its node is gone", 1.0))
    assert m.members[A].state is State.LOST and m.routed() == {B: "a"}
    m.remove(A)
    assert m.changes() == [Change(A, "", True)]
    ready(m, A, "b")
    assert m.members[A].restarts == 1
    m.scale({0: 1})
    m.remove(A)
    assert m.restarts == [1], "what was counted stays counted"


def test_processes_that_end_before_they_join_are_failures_until_one_joins() -> None:
    m = running(1)
    m.scale({0: 2})
    m.begin(B, "n0", 0.0)
    for name in "abc":
        m.put(m.members[B].answered(pulse(name, loaded=False), 1.0))
    assert m.members[B].failures == 2 and m.members[B].overdue(m.options, 1.0) == ""
    ready(m, B, "c")
    assert m.members[B].failures == 0
    for name in "defg":
        m.put(m.members[B].answered(pulse(name, loaded=False), 2.0))
    assert m.members[B].overdue(m.options, 2.0), "the first had joined, the next three had not"
    m.take_back(B, "why", 2.0)
    assert m.desired.counts == (2,) and m.changes() == [Change(B, "", True)], "it has served, so it is missed"
    m.begin(B, "n0", 3.0)
    assert m.members[B].overdue(m.options, 3.0) == "" and m.desired.notes == {0: "why"}
    assert m.members[B].restarts == 7 == m.restarts[0]


def test_failures_are_remembered_over_attempts_that_are_lost() -> None:
    m = running(1)
    m.scale({0: 2})
    for failures in range(1, 4):
        m.begin(B, "n0", 0.0)
        m.put(m.members[B].lost("ValueError: no", 1.0))
        assert m.members[B].failures == failures and m.members[B].why == "ValueError: no"
        if failures < 3:
            m.remove(B)
    m.take_back(B, "why", 1.0)
    assert m.desired.counts == (1,) and m.changes() == [], "it never served: one less is wanted"


def test_a_scaling_that_fails_is_taken_back_with_its_reason() -> None:
    m = running(1)
    m.scale({0: 3})
    for change in m.changes():
        m.begin(change.id, "", 0.0)
    m.take_back(ReplicaId(0, 2), "no node", 0.0)
    assert (m.desired.counts, m.desired.notes, m.desired.revision) == ((2,), {0: "no node"}, 3)
    m.take_back(B, "no node", 0.0)
    assert m.desired.counts == (1,) and m.changes() == []
    m.scale({0: 2})
    assert m.desired.notes == {}


def test_the_place_of_a_lost_replica_stays_wanted() -> None:
    m = running(2)
    m.put(m.members[B].lost("its node is gone", 1.0))
    m.remove(B)
    m.begin(B, "", 1.0)
    m.take_back(B, "no node", 1.0)
    assert m.desired.counts == (2,) and m.changes() == [Change(B, "", True)]
    ready(m, B, "b")
    assert m.members[B].restarts == 1


def test_why_a_replica_is_away_is_shown_while_it_is_and_a_note_comes_first() -> None:
    m = running(1, 1)
    for replica_id in (A, C):
        m.put(m.members[replica_id].ended(1.0).unanswered("its machine's memory was full"))
    m.desired.failed(ReplicaId(1, 1), "replica 1 was not started", 1.0)
    assert m.remarks() == {0: "replica 0 is away: its machine's memory was full", 1: "replica 1 was not started"}
    m.put(m.members[A].answered(pulse("b"), 2.0))
    assert 0 not in m.remarks()


class Course(RuleBasedStateMachine):
    """Whatever happens in whatever order, what should be is reached once it stops happening."""

    def __init__(self) -> None:
        super().__init__()
        self.m, self.names = running(1, 1), 0

    @rule(expert=st.integers(0, 1), count=st.integers(1, 4))
    def scale(self, expert: int, count: int) -> None:
        self.m.scale({expert: count})

    @rule()
    def reconcile(self) -> None:
        for change in self.m.changes():
            if change.start:
                self.m.begin(change.id, "n0", 0.0)
            else:
                self.m.put(self.m.members[change.id].retired(0.0))

    @precondition(lambda self: self.m.members)
    @rule(data=st.data())
    def something(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.m.members)))
        member = self.m.members[replica_id]
        match data.draw(st.sampled_from(["ended", "lost", "alive", "restarted", "joined", "gone", "take back"])):
            case "ended":
                self.m.put(member.ended(0.0))
            case "lost":
                self.m.put(member.lost("why", 0.0))
            case "alive":
                self.m.put(member.answered(pulse(member.incarnation or "a", loaded=data.draw(st.booleans())), 0.0))
            case "restarted":
                self.names += 1
                self.m.put(member.answered(pulse(str(self.names), loaded=False), 0.0))
            case "joined" if replica_id in self.m.routed():
                self.m.put(member.joined(0.0))
            case "gone" if member.state in (State.RETIRING, State.LOST):
                self.m.remove(replica_id)
            case "take back" if member.state in (State.STARTING, State.LOST):
                self.m.take_back(replica_id, "why", 0.0)

    @invariant()
    def sound(self) -> None:
        self.m.check()
        assert all(self.m.members[replica_id].incarnation == name for replica_id, name in self.m.routed().items())
        assert not any(self.m.members[r].state in (State.RETIRING, State.LOST) for r in self.m.routed())

    def teardown(self) -> None:
        for _ in range(3):
            for replica_id, member in list(self.m.members.items()):
                if member.state in (State.RETIRING, State.LOST):
                    self.m.remove(replica_id)
                else:
                    ready(self.m, replica_id, member.incarnation or "a")
            self.reconcile()
        for replica_id, member in list(self.m.members.items()):
            if member.state is State.RETIRING:
                self.m.remove(replica_id)
        counts = tuple(sum(m.state is State.READY for m in self.m.of(e)) for e in (0, 1))
        assert counts == self.m.desired.counts and self.m.changes() == []


TestCourse = Course.TestCase
TestCourse.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
