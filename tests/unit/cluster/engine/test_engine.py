"""The engine's thread at work: requests go in, events come out. Its failures are in test_engine_failures.py."""

from dataclasses import replace

import pytest

from cluster.engine.engine import QueueFull
from cluster.engine.events import Finish, FinishReason, Sampled
from cluster.policy.scheduling.sequence import SequenceRequest
from model.batch import SamplingParams
from tests.engines import Make, check_idle, expected, request, steps_of
from tests.fakes import Events, FakeHead


def test_it_takes_its_bounds_from_the_head(make: Make) -> None:
    limits = make(max_running=3, budget=9).limits
    assert (limits.max_running, limits.max_tokens_per_step) == (3, 9)
    assert (limits.page_count, limits.page_size, limits.window) == (64, 4, None)


def test_a_request_becomes_events_and_the_last_says_why(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(), request("a")
    engine.submit([a])
    events.wait_for_end("a")
    assert events.tokens("a") == expected(head, a)
    finishes = [e.finish for e in events.by_id["a"] if isinstance(e, Sampled)]
    assert finishes == [None, None, None, Finish(FinishReason.LENGTH)]
    check_idle(engine, events)


def test_a_stop_id_is_named(make: Make, head: FakeHead, events: Events) -> None:
    engine, a = make(), request("a", max_tokens=9)
    stop = expected(head, a)[0]
    engine.submit([request("a", max_tokens=9, stop_ids=frozenset({stop}))])
    events.wait_for_end("a")
    assert events.tokens("a") == [stop]
    assert events.finish("a") == Finish(FinishReason.STOP, stop_token_id=stop)


def test_requests_share_steps_and_join_running_ones(make: Make, head: FakeHead, events: Events) -> None:
    engine = make()
    head.hold()
    a, b = request("a", max_tokens=9), request("b", max_tokens=2)
    engine.submit([a])
    head.wait_for_plan()
    engine.submit([b])
    head.let_go()
    events.wait_for_end("a", "b")
    assert (events.tokens("a"), events.tokens("b")) == (expected(head, a), expected(head, b))
    assert any(len(plan.chunks) == 2 for plan in head.plans)
    assert events.batches == 9, "tokens of one step come in one batch"
    check_idle(engine, events)


def test_log_probabilities_routing_and_counts_are_passed_on(make: Make, head: FakeHead, events: Events) -> None:
    head.retries = 3
    engine = make(budget=4)
    sampling = SamplingParams(logprobs=2)
    engine.submit([SequenceRequest(tuple(range(10)), sampling, 2, routing=True, sequence_id="a")])
    events.wait_for_end("a")
    first, last = events.by_id["a"]
    assert isinstance(first, Sampled) and isinstance(last, Sampled)
    assert (first.token.logprob, first.token.top) == (-0.5, ((0, -1.0), (1, -1.0)))
    assert first.routing == ((10, 10, 0, 0), (0, 0, 10, 10)), "all three chunks of the prompt count"
    assert last.routing == ((1, 1, 0, 0), (0, 0, 1, 1))
    assert (events.started["a"].retries, first.retries, last.retries) == (0, 9, 12), "in three and four steps"
    assert (steps_of(engine), engine.statistics.retries) == (4, 12)
    assert engine.statistics.counters.expert_rows == ((11, 11, 0, 0), (0, 0, 11, 11))
    check_idle(engine, events)


def test_started_is_when_it_first_ran(make: Make, head: FakeHead, events: Events) -> None:
    times = iter(range(100, 200))
    engine = make(max_running=1, clock=lambda: next(times))
    engine.submit([request("a", max_tokens=2), request("b", max_tokens=2)])
    events.wait_for_end("a", "b")
    assert 100 < events.started["a"].at < events.started["b"].at


def test_an_abort_frees_slot_and_pages_before_the_next_step(make: Make, head: FakeHead, events: Events) -> None:
    engine = make()
    head.hold()
    engine.submit([request("a", max_tokens=50), request("b", max_tokens=50)])
    head.wait_for_plan()
    engine.abort("a")
    engine.abort("nobody")
    head.let()
    plan = head.wait_for_plan(lambda p: p.step == 1)
    assert [chunk.slot for chunk in plan.chunks] == [1]
    assert plan.release == (0,)
    engine.abort("b")
    head.let_go()
    check_idle(engine, events)
    assert len(events.tokens("a")) == 1  # of the step under way when it was aborted


def test_one_that_waits_can_be_aborted(make: Make, head: FakeHead, events: Events) -> None:
    engine = make(max_running=1)
    head.hold()
    engine.submit([request("a"), request("b")])
    head.wait_for_plan()
    assert (engine.counters().running, engine.counters().waiting) == (1, 1)
    engine.abort("b")
    head.let_go()
    events.wait_for_end("a")
    check_idle(engine, events)
    assert "b" not in events.by_id


def test_a_full_queue_refuses_all_outputs_of_a_request(make: Make, head: FakeHead, events: Events) -> None:
    engine = make(max_running=2, max_queued=2)
    head.hold()
    engine.submit([request("a"), request("b")])
    head.wait_for_plan()
    engine.submit([request("c"), request("d")])
    with pytest.raises(QueueFull) as refused:
        engine.submit([request("e"), request("f")])
    assert 1.0 <= refused.value.retry_seconds <= 60.0
    assert engine.counters().waiting == 2
    head.let_go()
    events.wait_for_end("a", "b", "c", "d")
    assert not {"e", "f"} & set(events.by_id)
    check_idle(engine, events)


def test_prompts_that_come_together_count_with_all_their_tokens(make: Make, head: FakeHead, events: Events) -> None:
    engine = make(max_running=1, max_queued=8, max_queued_tokens=14)
    head.hold()
    engine.submit([request("a")])
    head.wait_for_plan()
    engine.submit([request("b")])
    with pytest.raises(QueueFull):
        engine.submit([request("c"), request("d")])
    d = request("d")
    engine.submit([replace(d, sequence_id=f"d{i}", sampling=replace(d.sampling, output_index=i)) for i in range(2)])
    head.let_go()
    events.wait_for_end("a", "b", "d0", "d1")
    check_idle(engine, events)


def test_the_retry_time_follows_the_pace_of_late(make: Make, head: FakeHead, events: Events) -> None:
    now = [0.0]
    engine = make(max_running=1, max_queued=1, clock=lambda: now[0])
    head.hold()
    for i, key in enumerate("abc"):
        engine.submit([request(key, max_tokens=1)])
        head.wait_for_plan()
        now[0] = 10.0 * (i + 1)
        head.let()
        events.wait_for_end(key)
    engine.submit([request("d")])
    head.wait_for_plan()
    now[0] = 40.0
    engine.submit([request("e")])
    with pytest.raises(QueueFull) as refused:
        engine.submit([request("f")])
    assert refused.value.retry_seconds == 10.0
