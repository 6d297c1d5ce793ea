"""Which actors are ready, and which have failed."""

from actors.replica import ReplicaId
from actors.vitals import Pulse
from cluster.policy.replicas.lifecycle import MOST_FAILURES
from cluster.policy.replicas.readiness import AWAY_SECONDS, Readiness
from model.batch import LoadProgress

FIRST, SECOND = ReplicaId(0, 0), ReplicaId(0, 1)


def pulse(incarnation: str = "a", ready: bool = False, error: str = "") -> Pulse:
    return Pulse(incarnation, 7, "n0", LoadProgress(1, 2, ready, error))


def test_all_are_awaited_until_they_have_their_weights() -> None:
    start = Readiness(["head", FIRST])
    assert start.waiting == ["head", FIRST]
    assert start.note({"head": pulse(ready=True)}, {}, {}, 1.0) == {}
    assert start.waiting == [FIRST] and start.progress()["head"].ready
    assert start.note({FIRST: pulse()}, {}, {}, 2.0) == {}
    assert start.progress()[FIRST].loaded_bytes == 1
    assert start.note({FIRST: pulse(ready=True)}, {}, {}, 3.0) == {}
    assert start.waiting == [] and set(start.pulses) == {"head", FIRST}


def test_who_is_lost_or_cannot_load_will_not_come() -> None:
    start = Readiness(["head", FIRST])
    found = start.note({"head": pulse(error="OSError: gone")}, {FIRST: "ValueError: no"}, {}, 1.0)
    assert found == {"head": "OSError: gone", FIRST: "ValueError: no"}


def test_one_that_restarts_is_awaited_but_not_for_ever() -> None:
    start = Readiness(["head"])
    for seconds in range(5):
        assert start.note({}, {}, {"head": "it restarts"}, float(seconds)) == {}, "however often it is asked"
    for number in range(MOST_FAILURES):
        assert start.note({"head": pulse(str(number))}, {}, {}, 10.0) == {}
    found = start.note({"head": pulse("last")}, {}, {}, 11.0)
    assert found == {"head": f"its process ended {MOST_FAILURES} times before it was ready"}


def test_one_that_cannot_be_reached_is_given_up_after_a_while() -> None:
    start = Readiness(["head"])
    assert start.note({}, {}, {"head": "unavailable"}, 0.0) == {}
    assert start.note({"head": pulse()}, {}, {}, 50.0) == {}
    assert start.note({}, {}, {"head": "unavailable"}, 60.0) == {}
    assert start.note({}, {}, {"head": "unavailable"}, 60.0 + AWAY_SECONDS) == {}
    assert start.note({}, {}, {"head": "unavailable"}, 60.1 + AWAY_SECONDS) == {"head": "unavailable"}


def test_a_dispensable_one_may_fail_as_long_as_another_of_its_expert_does_not() -> None:
    dispensable = {FIRST: [SECOND], SECOND: [FIRST]}
    start = Readiness(["head", FIRST, SECOND], dispensable)
    assert start.note({SECOND: pulse(error="no memory")}, {}, {}, 1.0) == {}
    assert start.actors == ["head", FIRST] and start.failed == {SECOND: "no memory"}
    assert start.note({"head": pulse(ready=True)}, {FIRST: "gone"}, {}, 2.0) == {FIRST: "gone"}


def test_two_that_could_stand_in_for_each_other_do_not_fail_together() -> None:
    dispensable = {FIRST: [SECOND], SECOND: [FIRST]}
    start = Readiness([FIRST, SECOND], dispensable)
    assert set(start.note({}, {FIRST: "gone", SECOND: "gone"}, {}, 1.0)) == set(dispensable)


def test_one_that_was_ready_and_restarts_is_awaited_again() -> None:
    start = Readiness(["head", FIRST])
    start.note({"head": pulse(ready=True), FIRST: pulse("a", ready=True)}, {}, {}, 1.0)
    assert start.waiting == []
    start.note({}, {}, {FIRST: "it restarts"}, 2.0)
    assert start.waiting == [FIRST]
    start.note({FIRST: pulse("b", ready=True)}, {}, {}, 3.0)
    assert start.waiting == [] and start.pulses[FIRST].incarnation == "b"
