"""How an engine adopts its head: at the start, after losses, and against other engines."""

import threading
import time

import pytest

from actors.seams import HeadLost, HeadTaken
from cluster.engine.engine import Engine, EngineStopped
from tests.engines import Make, check_idle, engine_bounds, expected, request
from tests.fakes import PATIENCE, Events, FakeHead


def test_a_head_that_comes_back_late_is_waited_for(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(), request("a")
    head.outcomes.extend(["", HeadLost("killed")])
    head.begin_errors.extend([HeadLost("not back yet")] * 5)
    engine.submit([a])
    events.wait_for_end("a")
    assert events.tokens("a") == expected(head, a)
    check_idle(engine, events)


def test_a_head_that_is_lost_before_the_first_step_is_waited_for(make: Make, head: FakeHead, events: Events) -> None:
    head.begin_errors.extend([HeadLost("killed")] * 2)
    engine = make()
    engine.submit([request("a")])
    events.wait_for_end("a")
    assert events.tokens("a") == expected(head, request("a"))
    check_idle(engine, events)


def test_a_head_that_stays_away_fails_its_sequences_and_ends_the_engine(
    make: Make, head: FakeHead, events: Events
) -> None:
    now = iter(range(0, 10_000, 10))
    engine = make(grace=25.0, clock=lambda: float(next(now)))
    head.outcomes.append(HeadLost("killed"))
    head.begin_errors.extend([HeadLost("gone")] * 99)
    engine.submit([request("a"), request("b")])
    events.wait_for_end("a", "b")
    assert events.failures() == {"a": "unavailable", "b": "unavailable"}
    assert len(head.begin_errors) > 90, "it asks for its grace only"
    assert not engine.alive
    with pytest.raises(EngineStopped):
        engine.submit([request("c")])


def test_an_engine_whose_head_is_taken_ends_and_leaves_it_alone(make: Make, head: FakeHead, events: Events) -> None:
    engine = make()
    head.hold()
    engine.submit([request("a")])
    head.wait_for_plan()
    head.outcomes.append(HeadLost("so it seemed"))
    head.begin_errors.append(HeadTaken("by another", 10**30))
    head.let_go()
    events.wait_for_end("a")
    assert events.failures() == {"a": "stopped"}
    assert not engine.alive
    assert len(head.epochs) == 1


def test_a_later_engine_takes_the_head_over_although_the_clock_was_set_back(
    make: Make, head: FakeHead, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    now = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    second = make()
    assert second._adoption.epoch > first._adoption.epoch, "epochs do not run backwards"
    second.submit([request("a")])
    events.wait_for_end("a")
    assert events.failures() == {}


def test_a_later_engine_takes_the_head_over(make: Make, head: FakeHead, events: Events) -> None:
    first = make()
    head.hold()
    first.submit([request("a")])
    head.wait_for_plan()
    with pytest.raises(HeadTaken):
        head.begin(first._adoption.epoch)
    head.begin(first._adoption.epoch + 10**12)  # as a later one does
    head.outcomes.append("stale")
    head.let_go()
    events.wait_for_end("a")
    assert events.failures() == {"a": "stopped"}


def test_stopping_does_not_wait_for_a_head_that_is_away(make: Make, head: FakeHead, events: Events) -> None:
    engine, asked = make(), threading.Event()

    class Away(HeadLost):
        def __str__(self) -> str:  # it is logged
            asked.set()
            return "away"

    head.outcomes.append(HeadLost("killed"))
    head.begin_errors.extend([Away()] * 10**5)
    engine.submit([request("a")])
    assert asked.wait(PATIENCE)
    engine.stop(timeout=PATIENCE)
    assert events.failures() == {"a": "stopped"}
    assert not engine.alive


def test_an_engine_that_is_not_started_leaves_the_head_alone(head: FakeHead, events: Events) -> None:
    engine = Engine(head, engine_bounds(), events)
    assert not (head.epochs or engine.alive or engine.adopted)
    engine.stop()
    with pytest.raises(EngineStopped):
        engine.start()
    assert not (head.epochs or engine.alive)


def test_a_start_without_a_head_fails_after_its_grace(head: FakeHead, events: Events, no_waits: None) -> None:
    now = iter(range(0, 10_000, 10))
    head.begin_errors.extend([HeadLost("gone")] * 99)
    engine = Engine(head, engine_bounds(head_grace=25.0), events, lambda: float(next(now)))
    with pytest.raises(HeadLost):
        engine.start()
    assert len(head.begin_errors) > 90, "it asks for its grace only"
    assert not engine.alive
