"""The replicas that there are and should be."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.policy.replicas.membership import Change, Key, Membership, State


def running(*counts: int) -> Membership:
    """So many ready replicas of each expert, of which the first incarnation is "a", on node n0."""
    membership = Membership(counts)
    for expert, count in enumerate(counts):
        for slot in range(count):
            ready(membership, (expert, slot))
    return membership


def ready(membership: Membership, key: Key, incarnation: str = "a") -> None:
    if key not in membership.members:
        membership.begin(key, "n0", 0.0)
    membership.alive(key, incarnation, 7, "n0", True, 0.0)
    membership.joined(key, 0.0)


def states(membership: Membership) -> dict[Key, State]:
    return {key: member.state for key, member in sorted(membership.members.items())}


def test_scaling_up_starts_the_free_slots_and_down_ends_the_last() -> None:
    m = running(2, 1)
    m.scale({1: 3})
    assert m.changes() == [Change((1, 1), "", True), Change((1, 2), "", True)]
    assert m.changes({1: 1, 0: 1}) == [Change((0, 1), "n0", False)]
    m.scale({0: 1, 1: 1})
    assert m.changes() == [Change((0, 1), "n0", False)] and m.revision == 3
    m.drain((0, 1), 1.0)
    assert m.changes() == [], "what drains is no replica any more"
    m.scale({0: 2})
    assert m.changes() == [Change((0, 2), "", True)], "but it has its slot until it is gone"
    m.gone((0, 1))
    assert m.changes() == [Change((0, 1), "", True)]


def test_those_that_go_leave_as_many_on_each_node() -> None:
    m = running(*[2] * 8)
    for (_, slot), member in m.members.items():
        member.node_id = f"n{slot}"
    going = [change for change in m.changes(dict.fromkeys(range(8), 1)) if not change.start]
    assert sorted(change.node_id for change in going) == ["n0"] * 4 + ["n1"] * 4
    assert sorted(change.key[0] for change in going) == list(range(8))
    for change in going[:4]:
        m.drain(change.key, 0.0)
    m.scale(dict.fromkeys(range(8), 1), afresh=True)
    assert [change.key for change in m.changes()] == [change.key for change in going[4:]], "who drains counts no more"


def test_those_that_are_not_ready_go_first() -> None:
    m = running(3)
    m.ended((0, 0), 1.0)
    m.scale({0: 2})
    assert m.changes() == [Change((0, 0), "n0", False)]


def test_one_that_joins_is_routed_to_once_its_weights_are_there() -> None:
    m = running(1)
    m.begin((0, 1), "", 0.0)
    m.alive((0, 1), "b", 8, "n1", False, 1.0)
    assert m.routed() == {(0, 0): "a"} and m.unsettled() == [(0, 1)]
    m.alive((0, 1), "b", 8, "n1", True, 2.0)
    assert m.routed() == {(0, 0): "a", (0, 1): "b"} and states(m)[0, 1] is State.STARTING
    m.joined((0, 1), 3.0)
    assert states(m)[0, 1] is State.READY and m.members[0, 1].node_id == "n1" and m.unsettled() == []


def test_a_process_that_ended_is_routed_to_only_if_there_is_no_other_and_comes_back_as_a_restart() -> None:
    m = running(2, 1)
    m.ended((0, 0), 1.0)
    m.ended((1, 0), 1.0)
    assert m.routed() == {(0, 1): "a", (1, 0): "a"}
    for key in ((0, 0), (1, 0)):
        m.alive(key, "b", 9, "n0", False, 2.0)
    assert states(m) == {(0, 0): State.STARTING, (0, 1): State.READY, (1, 0): State.STARTING}
    assert m.routed() == {(0, 1): "a"}, "what loads its weights is not waited for"
    for key in ((0, 0), (1, 0)):
        ready(m, key, "b")
    assert m.routed() == {(0, 0): "b", (0, 1): "a", (1, 0): "b"}
    assert [m.members[key].restarts for key in sorted(m.members)] == [1, 0, 1]


def test_one_that_was_only_away_is_ready_again() -> None:
    m = running(1)
    m.ended((0, 0), 1.0)
    m.alive((0, 0), "a", 7, "n0", True, 2.0)
    assert m.members[0, 0].state is State.READY and m.members[0, 0].restarts == 0


def test_one_that_is_lost_is_started_again_in_its_slot_and_counts_as_a_restart() -> None:
    m = running(2)
    m.lost((0, 0), "its node is gone", 1.0)
    assert m.members[0, 0].state is State.LOST and m.routed() == {(0, 1): "a"}
    m.gone((0, 0))
    assert m.changes() == [Change((0, 0), "", True)]
    ready(m, (0, 0), "b")
    assert m.members[0, 0].restarts == 1
    m.scale({0: 1})
    m.drain((0, 0), 2.0)
    m.gone((0, 0))
    assert m.restarts == [1], "what was counted stays counted"


def test_processes_that_end_before_they_join_are_failures_until_one_joins() -> None:
    m = running(1)
    m.scale({0: 2})
    m.begin((0, 1), "n0", 0.0)
    for name in "abc":
        m.alive((0, 1), name, 8, "n0", False, 1.0)
    assert m.members[0, 1].failures == 2 and m.failed() == []
    ready(m, (0, 1), "c")
    assert m.members[0, 1].failures == 0
    for name in "defg":
        m.alive((0, 1), name, 8, "n0", False, 2.0)
    assert [member.key for member in m.failed()] == [(0, 1)], "the first had joined, the next three had not"
    m.take_back((0, 1), "why")
    assert m.desired == [2] and m.changes() == [Change((0, 1), "", True)], "it has served, so it is missed"
    m.begin((0, 1), "n0", 3.0)
    assert m.failed() == [] and m.notes == {0: "why"}
    ready(m, (0, 1), "h")
    assert m.notes == {} and m.members[0, 1].restarts == 7


def test_failures_are_remembered_over_attempts_that_are_lost() -> None:
    m = running(1)
    m.scale({0: 2})
    for _ in range(2):
        m.begin((0, 1), "n0", 0.0)
        m.lost((0, 1), "ValueError: no", 1.0)
        assert m.failed() == []
        m.gone((0, 1))
    m.begin((0, 1), "n0", 0.0)
    m.lost((0, 1), "ValueError: no", 1.0)
    assert [member.why for member in m.failed()] == ["ValueError: no"]
    m.take_back((0, 1), "why")
    assert m.desired == [1] and m.changes() == [], "it never served: one less is wanted"


def test_a_scaling_that_fails_is_taken_back_with_its_reason() -> None:
    m = running(1)
    m.scale({0: 3})
    for change in m.changes():
        m.begin(change.key, "", 0.0)
    m.take_back((0, 2), "no node")
    assert (m.desired, m.notes, m.revision) == ([2], {0: "no node"}, 3)
    m.take_back((0, 1), "no node")
    assert m.desired == [1] and m.changes() == []
    m.scale({0: 2})
    assert m.notes == {}


def test_the_place_of_a_lost_one_stays_wanted() -> None:
    m = running(2)
    m.lost((0, 1), "its node is gone", 1.0)
    m.gone((0, 1))
    m.begin((0, 1), "", 1.0)
    m.take_back((0, 1), "no node")
    assert m.desired == [2] and m.changes() == [Change((0, 1), "", True)]
    ready(m, (0, 1), "b")
    assert m.members[0, 1].restarts == 1


def test_replicas_move_away_from_a_node_once_others_are_ready() -> None:
    m = running(1, 2)
    m.members[1, 1].node_id = "n1"
    m.avoided.add("n0")
    assert m.changes() == [Change((0, 1), "", True), Change((1, 2), "", True)]
    m.begin((0, 1), "n1", 0.0)
    m.begin((1, 2), "n1", 0.0)
    assert m.changes() == []
    for key in ((0, 1), (1, 2)):
        m.alive(key, "b", 8, "n1", True, 1.0)
        m.joined(key, 1.0)
    assert m.changes() == [Change((0, 0), "n0", False), Change((1, 0), "n0", False)]
    m.avoided.clear()
    assert m.changes() == [Change((0, 1), "n1", False), Change((1, 2), "n1", False)], "ended, there is one too many"


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
                self.m.begin(change.key, "n0", 0.0)
            else:
                self.m.drain(change.key, 0.0)

    @precondition(lambda self: self.m.members)
    @rule(data=st.data())
    def something(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.m.members)))
        member = self.m.members[key]
        match data.draw(st.sampled_from(["ended", "lost", "alive", "restarted", "joined", "gone", "take back"])):
            case "ended":
                self.m.ended(key, 0.0)
            case "lost":
                self.m.lost(key, "why", 0.0)
            case "alive":
                self.m.alive(key, member.incarnation or "a", 7, "n0", data.draw(st.booleans()), 0.0)
            case "restarted":
                self.names += 1
                self.m.alive(key, str(self.names), 7, "n0", False, 0.0)
            case "joined" if key in self.m.routed():
                self.m.joined(key, 0.0)
            case "gone" if member.state in (State.DRAINING, State.LOST):
                self.m.gone(key)
            case "take back" if member.state in (State.STARTING, State.LOST):
                self.m.take_back(key, "why")

    @invariant()
    def sound(self) -> None:
        self.m.check()
        assert all(self.m.members[key].incarnation == name for key, name in self.m.routed().items())
        assert not any(self.m.members[key].state in (State.DRAINING, State.LOST) for key in self.m.routed())

    def teardown(self) -> None:
        for _ in range(3):
            for key, member in list(self.m.members.items()):
                if member.state in (State.DRAINING, State.LOST):
                    self.m.gone(key)
                else:
                    ready(self.m, key, member.incarnation or "a")
            self.reconcile()
        for key, member in list(self.m.members.items()):
            if member.state is State.DRAINING:
                self.m.gone(key)
        counts = [sum(m.state is State.READY for m in self.m.of(e)) for e in (0, 1)]
        assert counts == self.m.desired and self.m.changes() == []


TestCourse = Course.TestCase
TestCourse.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
