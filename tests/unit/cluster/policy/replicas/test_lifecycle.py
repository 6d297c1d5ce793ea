"""The states of one replica."""

from dataclasses import replace

import pytest

from actors.replica import ReplicaId
from actors.vitals import Pulse
from cluster.policy.replicas.lifecycle import MOST_FAILURES, Member, ReplicaOptions, State
from model.batch import LoadProgress

OPTIONS = ReplicaOptions(placement_timeout=60.0, start_timeout=200.0, needs={"GPU": 1.0})
NEW = Member(ReplicaId(0, 0), State.STARTING, 0.0)


def pulse(incarnation: str = "a", loaded: bool = True) -> Pulse:
    return Pulse(incarnation, 7, "n0", LoadProgress(0, 1, loaded))


READY = NEW.answered(pulse(), 1.0).joined(2.0)
UNREACHABLE = READY.ended(3.0)
RETIRING = READY.retired(3.0)


def test_a_new_replica_is_ready_when_it_has_joined() -> None:
    member = NEW.answered(pulse(loaded=False), 1.0)
    assert (member.state, member.since, member.loaded, member.node_id) == (State.STARTING, 0.0, False, "n0")
    assert NEW.restarts == 0 and not NEW.served, "what was handed out does not change"
    assert (READY.state, READY.since, READY.served, READY.restarts) == (State.READY, 2.0, True, 0)


def test_a_restarted_process_loads_and_joins_again() -> None:
    member = UNREACHABLE.answered(pulse("b", loaded=False), 4.0)
    assert (member.state, member.since, member.restarts, member.failures) == (State.STARTING, 4.0, 1, 0)


def test_a_replica_that_was_only_away_is_ready_again() -> None:
    member = UNREACHABLE.unanswered("no route").answered(pulse(), 4.0)
    assert (member.state, member.restarts, member.away) == (State.READY, 0, "")


@pytest.mark.parametrize("member", [RETIRING.ended(4.0), RETIRING.lost("why", 4.0), RETIRING.joined(4.0)])
def test_a_retired_replica_stays_retired(member: Member) -> None:
    assert member == RETIRING


def test_failures_count_until_the_replica_joins() -> None:
    member = NEW.answered(pulse("a", loaded=False), 1.0).answered(pulse("b"), 2.0).cold()
    assert (member.failures, member.why) == (2, "it did not answer a warm-up call")
    assert member.joined(3.0).failures == 0
    assert READY.cold() == READY, "a warm-up call that crossed its joining says nothing"
    assert NEW.lost("no node", 1.0).failures == 1 and READY.lost("no node", 1.0).failures == 0


def test_a_replica_that_fails_too_often_is_given_up() -> None:
    failing = replace(NEW, failures=MOST_FAILURES, why="its process ended")
    assert failing.overdue(OPTIONS, 0.0) == "it failed 3 times before it was ready: its process ended"
    assert replace(failing, failures=MOST_FAILURES - 1).overdue(OPTIONS, 0.0) == ""
    assert replace(failing, state=State.RETIRING).overdue(OPTIONS, 0.0) == ""


@pytest.mark.parametrize(
    ("member", "seconds", "why"),
    [
        (NEW, 60.0, "no node took it within 60 s (it needs: GPU 1; see `ray status`)"),
        (NEW.unanswered("it crashed"), 60.0, "its process did not start within 60 s: it crashed"),
        (NEW.answered(pulse(loaded=False), 1.0), 200.0, "its weights were not loaded within 200 s"),
        (UNREACHABLE.unanswered("it restarts"), 203.0, "it did not come back within 200 s: it restarts"),
    ],
)
def test_a_replica_is_given_up_when_its_time_is_over(member: Member, seconds: float, why: str) -> None:
    assert member.overdue(OPTIONS, seconds) == ""
    assert member.overdue(OPTIONS, seconds + 0.1) == why


@pytest.mark.parametrize("member", [READY, RETIRING, UNREACHABLE, NEW.answered(pulse(), 1.0)])
def test_what_runs_drains_is_silent_or_waits_to_join_is_not_given_up(member: Member) -> None:
    assert member.overdue(OPTIONS, 1e9) == ""
