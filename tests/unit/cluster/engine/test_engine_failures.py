"""What an engine does when its head fails or is lost, and when it is stopped. Adoption: test_adoption.py."""

import threading

import pytest

from actors.seams import HeadLost
from cluster.engine.engine import EngineStopped
from cluster.engine.events import Failed
from cluster.observe.events import Kind
from cluster.policy.scheduling.scheduler import Scheduler
from tests.engines import Make, check_idle, expected, request
from tests.fakes import PATIENCE, Events, FakeHead


def test_a_lost_head_neither_repeats_nor_loses_a_token(make: Make, head: FakeHead, events: Events) -> None:
    engine = make(max_running=2)
    requests = [request(key, max_tokens=12) for key in "abc"]
    for answers in (1, 0, 3, 5, 2):
        head.outcomes.extend([""] * answers)
        head.outcomes.append(HeadLost("killed"))
    engine.submit(requests)
    events.wait_for_end("a", "b", "c")
    assert {r.sequence_id: events.tokens(r.sequence_id) for r in requests} == {
        r.sequence_id: expected(head, r) for r in requests
    }
    assert head.incarnation == "head-5"
    assert head.epochs == sorted(set(head.epochs)) and len(head.epochs) == 6, "each adoption has a higher epoch"
    assert not events.failures()
    check_idle(engine, events)
    happened = [(event.kind, event.cause) for event in engine._events.after(0)]
    assert happened == [(Kind.HEAD_LOST, "killed"), (Kind.HEAD_RESTARTED, "")] * 5


def test_a_request_under_which_heads_end_one_after_the_other_is_given_up(
    make: Make, head: FakeHead, events: Events
) -> None:
    engine = make(max_running=1)
    head.outcomes.extend([HeadLost("killed")] * 5)
    engine.submit([request("a"), request("b")])
    events.wait_for_end("a", "b")
    assert events.failures() == {"a": "internal"}
    assert events.tokens("b") == expected(head, request("b"))
    check_idle(engine, events)


def test_a_request_that_goes_on_between_losses_is_kept(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(), request("a", max_tokens=6)
    for _ in range(3):
        head.outcomes.extend([HeadLost("killed")] * 4 + [""])
    engine.submit([a])
    events.wait_for_end("a")
    assert events.tokens("a") == expected(head, a)
    check_idle(engine, events)


def test_prefill_is_not_paced_while_streams_stand_still(make: Make, head: FakeHead, events: Events) -> None:
    engine, long = make(max_running=2, budget=100), request("b", prompt=150, max_tokens=2)
    a = request("a", prompt=20, max_tokens=12)
    head.hold()
    engine.submit([a])
    head.let(1)
    head.wait_for_plan(lambda plan: plan.step >= 1)
    engine.submit([long])
    head.let(1)
    head.wait_for_plan(lambda plan: plan.step >= 2)
    assert [c.length for c in head.plans[2].chunks] == [1, 64], "beside a stream it is paced"
    head.outcomes.append(HeadLost("killed"))
    head.let_go()
    events.wait_for_end("a", "b")
    again = [plan for plan in head.plans if plan.incarnation == "head-1"]
    assert [[c.length for c in plan.chunks] for plan in again[:3]] == [[22, 78], [1, 72], [1, 1]]
    assert events.tokens("b") == expected(head, long)
    check_idle(engine, events)


def test_who_waits_is_served_by_the_head_that_comes_back(make: Make, head: FakeHead, events: Events) -> None:
    engine = make(max_running=1)
    head.hold()
    engine.submit([request("a"), request("b")])
    head.wait_for_plan()
    engine.abort("a")
    head.outcomes.append(HeadLost("killed"))
    head.let_go()
    events.wait_for_end("b")
    assert events.tokens("b") == expected(head, request("b"))
    assert "a" not in events.by_id
    check_idle(engine, events)


def test_a_head_that_comes_back_with_less_memory_fails_only_what_no_longer_fits(
    make: Make, head: FakeHead, events: Events
) -> None:
    engine = make()
    head.hold()
    engine.submit([request("a", prompt=5), request("b", prompt=40)])
    head.wait_for_plan()
    head.page_count = 6  # of 4 tokens
    head.outcomes.append(HeadLost("killed"))
    head.let_go()
    events.wait_for_end("a", "b")
    assert events.tokens("a") == expected(head, request("a", prompt=5))
    assert events.by_id["b"] == [Failed("b", "unavailable")]
    assert engine.limits.page_count == 6
    check_idle(engine, events)


def test_a_head_of_another_incarnation_is_adopted_and_given_the_sequences_again(
    make: Make, head: FakeHead, events: Events
) -> None:
    engine, a = make(), request("a", max_tokens=6)
    head.hold()
    engine.submit([a])
    head.let(2)
    head.wait_for_plan(lambda plan: plan.step == 2)
    head.restart()  # so quickly that no call failed
    head.let_go()
    events.wait_for_end("a")
    assert events.tokens("a") == expected(head, a)
    assert {plan.incarnation for plan in head.plans} == {"head-0", "head-1"}
    check_idle(engine, events)


@pytest.mark.parametrize("kind", ["unavailable", "internal"])
def test_a_failed_step_fails_what_ran_in_it_and_nothing_else(
    kind: str, make: Make, head: FakeHead, events: Events
) -> None:
    engine, waiting = make(max_running=2), request("c")
    head.outcomes.extend(["", kind])
    engine.submit([request("a"), request("b"), waiting])
    events.wait_for_end("a", "b", "c")
    assert events.failures() == {"a": kind, "b": kind}
    assert [len(events.tokens(key)) for key in "ab"] == [1, 1]
    assert events.tokens("c") == expected(head, waiting)
    assert len(head.epochs) == 2, "what the head holds is in doubt, so it must begin anew"
    check_idle(engine, events)


def test_a_stale_step_fails_nobody(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(), request("a")
    head.outcomes.extend(["", "stale", "", "stale"])
    engine.submit([a])
    events.wait_for_end("a")
    assert (events.tokens("a"), events.failures()) == (expected(head, a), {})
    check_idle(engine, events)


def test_what_nobody_foresaw_fails_everything_as_internal(make: Make, head: FakeHead, events: Events) -> None:
    engine = make(max_running=1)
    head.outcomes.append(ZeroDivisionError("a bug"))
    engine.submit([request("a"), request("b")])
    events.wait_for_end("a", "b")
    assert events.failures() == {"a": "internal", "b": "internal"}
    assert not engine.alive


def test_a_leak_of_pages_is_found_when_the_engine_is_idle(
    make: Make, head: FakeHead, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    monkeypatch.setattr(Scheduler, "_vacate", lambda self, sequence: sequence.forget_cache())  # gives nothing back
    engine.submit([request("a")])
    events.wait_for_end("a")
    engine._thread.join(PATIENCE)
    assert not engine.alive
    with pytest.raises(AssertionError):
        engine.check()


def test_stop_fails_what_runs_and_what_waits(make: Make, head: FakeHead, events: Events) -> None:
    engine = make(max_running=1)
    head.hold()
    engine.submit([request("a"), request("b")])
    head.wait_for_plan()
    engine.submit([request("d")])  # which the engine's thread has not seen yet
    engine.stop()
    assert events.failures() == {"a": "stopped", "b": "stopped", "d": "stopped"}
    assert not engine.alive
    with pytest.raises(EngineStopped):
        engine.submit([request("c")])
    engine.abort("a")  # a client that leaves late is no error
    engine.stop()


def test_an_idle_engine_stops_at_once(make: Make, events: Events) -> None:
    engine = make()
    engine.stop(timeout=PATIENCE)
    assert not engine.alive
    assert not events.by_id


def test_many_threads_submit_and_abort(make: Make, head: FakeHead, events: Events) -> None:
    engine = make(max_running=3, max_queued=1000)
    keys = [f"{letter}{i}" for letter in "abcd" for i in range(20)]

    def client(letter: str) -> None:
        for i in range(20):
            engine.submit([request(f"{letter}{i}", max_tokens=1 + i % 5)])
            if i % 3 == 0:
                engine.abort(f"{letter}{i}")

    threads = [threading.Thread(target=client, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    kept = [key for key in keys if int(key[1:]) % 3]
    events.wait_for_end(*kept)
    assert all(events.tokens(k) == expected(head, request(k, max_tokens=1 + int(k[1:]) % 5)) for k in kept)
    check_idle(engine, events)
