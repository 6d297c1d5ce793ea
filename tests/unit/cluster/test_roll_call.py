"""Who is there, who is awaited, who will not come."""

from actors.messages import Pulse
from cluster.policy.membership import MOST_FAILURES
from cluster.roll_call import AWAY_SECONDS, RollCall
from model.batch import LoadProgress


def pulse(incarnation: str = "a", ready: bool = False, error: str = "") -> Pulse:
    return Pulse(incarnation, 7, "n0", LoadProgress(1, 2, ready, error))


def test_all_are_awaited_until_they_have_their_weights() -> None:
    call = RollCall(["head", "expert-0-0"])
    assert call.waiting == ["head", "expert-0-0"]
    assert call.note({"head": pulse(ready=True)}, {}, {}, 1.0) == {}
    assert call.waiting == ["expert-0-0"] and call.progress()["head"].ready
    assert call.note({"expert-0-0": pulse()}, {}, {}, 2.0) == {}
    assert call.progress()["expert-0-0"].loaded_bytes == 1
    assert call.note({"expert-0-0": pulse(ready=True)}, {}, {}, 3.0) == {}
    assert call.waiting == [] and set(call.pulses) == {"head", "expert-0-0"}


def test_who_is_lost_or_cannot_load_will_not_come() -> None:
    call = RollCall(["head", "expert-0-0"])
    found = call.note({"head": pulse(error="OSError: gone")}, {"expert-0-0": "ValueError: no"}, {}, 1.0)
    assert found == {"head": "OSError: gone", "expert-0-0": "ValueError: no"}


def test_one_that_restarts_is_awaited_but_not_for_ever() -> None:
    call = RollCall(["head"])
    for seconds in range(5):
        assert call.note({}, {}, {"head": "it restarts"}, float(seconds)) == {}, "however often it is asked"
    for number in range(MOST_FAILURES):
        assert call.note({"head": pulse(str(number))}, {}, {}, 10.0) == {}
    found = call.note({"head": pulse("last")}, {}, {}, 11.0)
    assert found == {"head": f"its process ended {MOST_FAILURES} times before it was ready"}


def test_one_that_cannot_be_reached_is_given_up_after_a_while() -> None:
    call = RollCall(["head"])
    assert call.note({}, {}, {"head": "unavailable"}, 0.0) == {}
    assert call.note({"head": pulse()}, {}, {}, 50.0) == {}
    assert call.note({}, {}, {"head": "unavailable"}, 60.0) == {}
    assert call.note({}, {}, {"head": "unavailable"}, 60.0 + AWAY_SECONDS) == {}
    assert call.note({}, {}, {"head": "unavailable"}, 60.1 + AWAY_SECONDS) == {"head": "unavailable"}
