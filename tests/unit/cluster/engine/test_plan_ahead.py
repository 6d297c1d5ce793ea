"""A step is sent while the one before it runs, and nobody can tell by what comes out."""

import random

import pytest

from actors.seams import HeadLost
from cluster.engine.events import Finish, FinishReason
from tests.engines import Make, check_idle, expected, request
from tests.fakes import Events, FakeHead


def test_the_second_step_is_there_before_the_first_is_answered(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(ahead=True), request("a", max_tokens=6)
    head.hold()
    engine.submit([a])
    head.wait_for_plan(lambda plan: plan.step == 1)
    assert [[(c.start, c.length) for c in plan.chunks] for plan in head.plans] == [[(0, 5)], [(5, 1)]]
    head.let_go()
    events.wait_for_end("a")
    assert events.tokens("a") == expected(head, a)
    assert len(head.plans) == 6, "the end by max_tokens is known beforehand"
    check_idle(engine, events)


def test_an_end_by_a_stop_id_costs_a_step_and_no_token(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(ahead=True), request("a", max_tokens=9)
    stop = expected(head, a)[2]
    engine.submit([request("a", max_tokens=9, stop_ids=frozenset({stop}))])
    events.wait_for_end("a")
    assert events.tokens("a") == expected(head, a)[:3]
    assert events.finish("a") == Finish(FinishReason.STOP, stop_token_id=stop)
    check_idle(engine, events)
    assert sum(len(plan.chunks) for plan in head.plans) == 4 + 1, "one too many, and the one that looks after it"


def test_who_waits_is_let_in_as_soon_as_both_steps_are_through(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(ahead=True), request("a", max_tokens=20)
    head.hold()
    engine.submit([a])
    head.wait_for_plan(lambda plan: plan.step == 1)
    engine.submit([request("b")])
    head.let(2)
    plan = head.wait_for_plan(lambda plan: plan.step == 2)
    assert len(plan.admit) == 1
    head.let_go()
    events.wait_for_end("a", "b")
    assert (events.tokens("a"), events.tokens("b")) == (expected(head, a), expected(head, request("b")))
    check_idle(engine, events)


def test_a_lost_head_takes_both_steps_with_it(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(ahead=True), request("a", max_tokens=8)
    for outcome in ("", "", HeadLost("killed"), "", "stale", "", HeadLost("killed")):
        head.outcomes.append(outcome)
    engine.submit([a])
    events.wait_for_end("a")
    assert events.tokens("a") == expected(head, a)
    check_idle(engine, events)


def test_a_failed_step_fails_its_requests_and_no_others(make: Make, head: FakeHead, events: Events) -> None:
    engine, b = make(ahead=True), request("b", max_tokens=5)
    head.outcomes.extend(["", "unavailable"])
    engine.submit([request("a", max_tokens=8)])
    events.wait_for_end("a")
    assert events.failures() == {"a": "unavailable"}
    engine.submit([b])
    events.wait_for_end("b")
    assert events.tokens("b") == expected(head, b)
    check_idle(engine, events)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("seed", range(12))
def test_all_manner_of_ends_leave_everything_as_it_was(
    make: Make, head: FakeHead, events: Events, seed: int, window: int | None
) -> None:
    """Stop ids, aborts, faults and losses of the head among requests that come and go, with few pages."""
    rng, sound = random.Random(seed), head.sample
    head.window, head.page_count = window, 24
    head.sample = lambda new, ids: -1 if new.token_ids[0] == ord("f") and len(ids) > 9 else sound(new, ids)
    engine, wanted = make(ahead=True, max_running=3, budget=12, max_queued=1000), {}
    faulty: list[str] = []
    for number in range(60):
        key = f"{rng.choice('abcdf')}{number}"
        r = request(key, prompt=rng.randrange(1, 12), max_tokens=rng.randrange(1, 14))
        tokens = expected(head, r)
        stops = frozenset({rng.choice(tokens)}) if rng.random() < 0.4 else frozenset[int]()
        end = min((tokens.index(stop) + 1 for stop in stops), default=len(tokens))
        engine.submit([request(key, len(r.prompt_ids), r.max_tokens, stops)])
        if rng.random() < 0.15:
            engine.abort(key)
        elif key[0] != "f":
            wanted[key] = tokens[:end]
        else:
            faulty.append(key)
        if rng.random() < 0.05:
            head.outcomes.append(HeadLost("killed"))
        if rng.random() < 0.2:
            events.wait_for_end(*list(wanted)[-1:])
    events.wait_for_end(*wanted, *faulty)
    assert {key: events.tokens(key) for key in wanted} == wanted
    head.sample = sound
    check_idle(engine, events)
