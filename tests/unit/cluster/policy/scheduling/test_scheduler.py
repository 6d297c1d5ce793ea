"""What each step runs. The head of these tests asserts that plans are sound (tests/fakes.py)."""

import pytest

from cluster.policy.scheduling.limits import Backlog, Limits
from model.batch import Chunk, StepPlan, StepResult
from tests.scheduling import Bench, alone, sequence


def chunks(plan: StepPlan) -> list[tuple[int, int, int]]:
    return [(c.slot, c.start, c.length) for c in plan.chunks]


def test_a_prompt_then_token_by_token() -> None:
    bench = Bench(Limits(2, 16, 8, 4))
    bench.add(sequence("a", prompt=5, max_tokens=3))
    first, second, third = bench.finish()
    assert first.chunks == (Chunk(0, 0, 5, (0, 1), True),)
    assert [n.token_ids for n in first.admit] == [tuple(sequence("a").token_ids)]
    assert (second.chunks, second.admit) == ((Chunk(0, 5, 1, (), True),), ())
    assert third.chunks == (Chunk(0, 6, 1, (), True),)
    assert [d.exhausted for d in bench.sampled["a"]] == [False, False, True]
    assert bench.scheduler.pool.free_count == 8
    assert [plan.step for plan in (first, second, third)] == [0, 1, 2]


def test_a_long_prompt_comes_in_chunks_and_only_its_last_samples() -> None:
    bench = Bench(Limits(2, 4, 8, 4))
    bench.add(sequence("a", prompt=10, max_tokens=1))
    plans = bench.finish()
    assert [chunks(p) for p in plans] == [[(0, 0, 4)], [(0, 4, 4)], [(0, 8, 2)]]
    assert [p.chunks[0].sample for p in plans] == [False, False, True]


def test_decodes_go_on_while_a_long_prompt_is_run() -> None:
    bench = Bench(Limits(3, 8, 40, 4))
    bench.add(sequence("a", prompt=3, max_tokens=20))
    bench.step()
    bench.add(sequence("long", prompt=30, max_tokens=1))
    plans = [bench.step() for _ in range(5)]
    assert [chunks(p)[0] for p in plans] == [(0, 3 + i, 1) for i in range(5)]
    assert [chunks(p)[1] for p in plans] == [(1, 0, 7), (1, 7, 7), (1, 14, 7), (1, 21, 7), (1, 28, 2)]


def test_a_slot_that_becomes_free_is_taken_in_the_next_step() -> None:
    bench = Bench(Limits(2, 16, 16, 4))
    bench.add(sequence("a", max_tokens=2), sequence("b", max_tokens=5), sequence("c", max_tokens=1))
    plans = bench.finish()
    assert [len(plan.admit) for plan in plans] == [2, 0, 1, 0, 0]
    assert [len(plan.chunks) for plan in plans] == [2, 2, 2, 1, 1]


def test_higher_priority_enters_first_then_who_came_first() -> None:
    bench = Bench(Limits(1, 8, 8, 4))
    bench.add(sequence("a"), sequence("low", priority=-1), sequence("high", priority=5), sequence("b"))
    order = [next(iter(n.token_ids)) for plan in bench.finish() for n in plan.admit]
    assert order == [sequence(key).token_ids[0] for key in ("high", "a", "b", "low")]


def test_when_pages_run_out_the_last_is_preempted_and_resumes_with_its_tokens() -> None:
    bench = Bench(Limits(2, 16, 5, 4))
    a, b = sequence("a", prompt=6, max_tokens=9), sequence("b", prompt=6, max_tokens=9)
    expected = {s.id: alone(s)[0] for s in (a, b)}
    bench.add(a, b)
    plans = bench.finish()
    again = [n for plan in plans[1:] for n in plan.admit]
    assert [n.prompt_length for n in again] == [6]
    assert len(again[0].token_ids) > 6, "it comes back with what it had put out"
    assert {key: bench.tokens(key) for key in "ab"} == expected
    assert [d.sequence.id for d in bench.sampled["a"] + bench.sampled["b"] if d.exhausted] == ["a", "b"]


def test_a_prompt_without_pages_waits_for_who_came_later_but_runs_already() -> None:
    """Both hold what they have; the later one gives way when it needs a page itself."""
    bench = Bench(Limits(2, 5, 6, 4))
    bench.add(sequence("late", prompt=5, max_tokens=12))
    bench.step()
    bench.add(sequence("first", prompt=16, max_tokens=3, priority=1))
    taken = [[(new.slot, len(new.token_ids)) for new in bench.step().admit] for _ in range(10)]
    assert taken[0] == [(1, 16)]
    assert not any(taken[1:]), "nobody begins again"
    assert bench.tokens("first") == alone(sequence("first", prompt=16, max_tokens=3))[0]
    bench.finish()
    assert bench.tokens("late") == alone(sequence("late", prompt=5, max_tokens=12))[0]


def test_nobody_enters_on_the_pages_that_a_running_one_waits_for() -> None:
    bench = Bench(Limits(3, 9, 6, 4))
    bench.add(sequence("late", prompt=7, max_tokens=12))
    bench.step()
    bench.add(sequence("first", prompt=16, max_tokens=3, priority=1), sequence("small", prompt=2, max_tokens=1))
    assert chunks(bench.step()) == [(0, 7, 1), (1, 0, 8)]
    plan = bench.step()
    assert bench.scheduler.pool.free_count == 1, "first wants two"
    assert (chunks(plan), plan.admit) == ([(0, 8, 1)], ())
    bench.finish()


def test_who_was_preempted_comes_back_when_all_of_it_has_room() -> None:
    bench = Bench(Limits(8, 64, 60, 16))
    sequences = [sequence(str(i), prompt=400, max_tokens=300) for i in range(6)]
    needed = sum(s.prompt_length + s.request.max_tokens - 1 for s in sequences)
    bench.add(*sequences)
    ran = sum(chunk.length for plan in bench.finish() for chunk in plan.chunks)
    assert ran <= 2 * needed, "too much is run again and again"


def test_stop_ids_end_a_sequence_but_not_before_min_tokens() -> None:
    out = alone(sequence("a", max_tokens=8))[0]
    late = next(i for i in range(1, 8) if out[i] not in out[:i])  # first seen at index `late`
    plain, held = Bench(Limits(1, 16, 8, 4)), Bench(Limits(1, 16, 8, 4))
    plain.add(sequence("a", max_tokens=8, stop_ids=(out[0], out[late])))
    plain.finish()
    assert [(d.stopped, d.exhausted) for d in plain.sampled["a"]] == [(True, False)]
    held.add(sequence("a", max_tokens=8, stop_ids=(out[late],), min_tokens=late + 1))
    held.finish()
    assert held.tokens("a") == out[: late + 1]
    assert held.sampled["a"][-1].stopped


def test_an_aborted_sequence_leaves_its_slot_and_pages_at_once() -> None:
    bench = Bench(Limits(1, 16, 8, 4))
    bench.add(sequence("a"), sequence("b"))
    bench.step()
    assert bench.scheduler.abort("a") and not bench.scheduler.abort("a")
    assert bench.scheduler.pool.free_count == 8
    plan = bench.step()
    assert (plan.release, [n.slot for n in plan.admit]) == ((0,), [0])
    assert bench.scheduler.abort("b")
    assert not bench.scheduler.has_work
    assert bench.plan_if_any() is None


def test_a_step_that_outlives_its_sequence_changes_nothing() -> None:
    bench = Bench(Limits(2, 16, 8, 4))
    bench.add(sequence("a"), sequence("b"))
    plan = bench.plan()
    bench.scheduler.abort("a")
    bench.commit(plan, bench.run(plan))
    assert list(bench.sampled) == ["b"]
    bench.finish()
    assert bench.tokens("b") == alone(sequence("b"))[0]


def test_requeue_all_runs_everything_again_without_repeating_tokens() -> None:
    bench = Bench(Limits(2, 16, 20, 4))
    keys = ("a", "b", "c")
    bench.add(*(sequence(key, max_tokens=5) for key in keys))
    bench.step()
    lost = bench.plan()
    bench.head.restart()
    bench.scheduler.requeue_all()
    bench.scheduler.check()
    assert (len(bench.scheduler.running()), len(bench.scheduler.queue)) == (0, 3)
    bench.commit(lost, StepResult(lost.step, 7, (), ()))  # should it come after all
    plan = bench.step()
    assert plan.release == (), "the new head has no slots to release"
    assert [n.token_ids[: n.prompt_length] for n in plan.admit] == [tuple(sequence(k).token_ids) for k in "ab"]
    bench.finish()
    assert {key: bench.tokens(key) for key in keys} == {key: alone(sequence(key, max_tokens=5))[0] for key in keys}


def test_routing_sums_the_chunks_of_a_prompt() -> None:
    bench = Bench(Limits(2, 4, 8, 4))
    bench.add(sequence("a", prompt=10, max_tokens=2, routing=True), sequence("b", prompt=2, max_tokens=2))
    bench.finish()
    assert [d.routing for d in bench.sampled["a"]] == [((10, 10, 0, 0), (0, 0, 10, 10)), ((1, 1, 0, 0), (0, 0, 1, 1))]
    assert {d.routing for d in bench.sampled["b"]} == {()}


@pytest.mark.parametrize(("tokens", "pages"), [(1, 1), (16, 1), (17, 2), (100, 7), (154, 10), (155, 10), (9999, 10)])
def test_a_window_bounds_the_pages_of_any_length(tokens: int, pages: int) -> None:
    limits = Limits(1, 8, 10, 16, window=128)
    assert limits.pages_of(tokens) == pages
    assert limits.fit(tokens)
    assert limits.fit(tokens) == (Limits(1, 8, pages - 1, 16, window=128).fit(tokens) is False)


def test_without_a_window_a_sequence_needs_a_page_per_page_of_tokens() -> None:
    assert [Limits(1, 8, 10, 16).fit(tokens) for tokens in (160, 161)] == [True, False]


def test_it_recovers_until_each_that_a_loss_interrupted_has_a_token_or_is_gone() -> None:
    bench = Bench(Limits(2, 16, 20, 4))
    bench.add(*(sequence(key, max_tokens=5) for key in ("a", "b", "c")))
    seen = []
    for deed in (
        bench.step,
        bench.head.restart,
        bench.scheduler.requeue_all,
        lambda: bench.scheduler.abort("b"),
        bench.step,  # of a, and of c, which had not begun
    ):
        deed()
        seen.append(bool(bench.scheduler.interrupted))
    assert seen == [False, False, True, True, False]


def test_a_loss_counts_against_those_in_the_step() -> None:
    bench = Bench(Limits(2, 8, 40, 4))
    bench.add(sequence("a", prompt=3, max_tokens=20))
    bench.step()
    bench.add(sequence("long", prompt=30, max_tokens=1))
    bench.step()
    a, long = bench.scheduler.running()
    bench.scheduler.plan(1, "", prefill_tokens=0)
    assert (a.planned, long.planned) == (1, 0)
    assert bench.scheduler.head_lost() == []
    assert (a.losses, long.losses) == (1, 0)


def test_the_backlog_is_what_stands_before_another_request() -> None:
    bench = Bench(Limits(2, 4, 40, 4))
    bench.add(sequence("a", prompt=4, client="ann"))
    bench.step()
    bench.add(*(sequence(key, prompt, client=client) for key, prompt, client in (("b", 5, "bob"), ("c", 7, "ann"))))
    assert bench.scheduler.backlog("ann") == Backlog(sequences=2, tokens=12, of_client=1, free_slots=1)
