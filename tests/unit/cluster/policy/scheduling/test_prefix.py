"""Where a sequence begins when it enters its slot: what is found of its prompt, and what forks share."""

import dataclasses

import pytest

from cluster.policy.scheduling.blocks import BlockPool
from cluster.policy.scheduling.limits import Limits, first_visible
from cluster.policy.scheduling.prefix import PrefixHit, extend_keys, find_prefix_hit, ready_pages
from cluster.policy.scheduling.sequence import Sequence
from model.batch import StepPlan
from tests.scheduling import Bench, sequence

LIMITS = Limits(max_running=8, max_tokens_per_step=64, page_count=40, page_size=4)


def keys_of(token_ids: list[int], page_size: int = 4) -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, token_ids, page_size, len(token_ids) // page_size)
    return keys


def test_a_key_stands_for_everything_up_to_its_end() -> None:
    text = list(range(12))
    keys = keys_of(text)
    assert len(set(keys)) == 3
    assert keys_of(text[:9]) == keys[:2], "what follows changes nothing"
    assert keys_of([99, *text[1:]])[1:] != keys[1:], "equal pages after other beginnings are others"
    assert keys_of([0, 0, 0, 0, 0, 0, 0, 0])[0] != keys_of([0, 0, 0, 0, 0, 0, 0, 0])[1]


def test_tenants_have_keys_of_their_own() -> None:
    text = list(range(8))
    by_tenant = []
    for tenant in ("", "alice", "bob", "eightwinds"):
        keys: list[bytes] = []
        extend_keys(keys, text, 4, 2, tenant)
        by_tenant.append(keys)
    assert by_tenant[0] == keys_of(text)
    assert len({key for keys in by_tenant for key in keys}) == 8, "no page of one is found by another"


def test_keys_grow_with_the_text() -> None:
    text = list(range(20))
    keys: list[bytes] = []
    for pages in (0, 1, 1, 3, 5):
        extend_keys(keys, text, 4, pages)
    assert keys == keys_of(text)


@pytest.mark.parametrize(
    ("position", "window", "page"),
    [(14, 6, 2), (0, 6, 0), (5, 6, 0), (8, 6, 0), (9, 6, 1), (1000, None, 0), (7, 1, 1), (8, 1, 2)],
)
def test_the_first_page_that_is_seen(position: int, window: int | None, page: int) -> None:
    assert first_visible(position, window, page_size=4) == page
    first = 0 if window is None else max(0, position - window + 1)
    assert first // 4 == page


@pytest.mark.parametrize(
    ("known", "window", "ready"),
    [
        ([0, 1, 2, 3, 4], None, 5),
        ([0, 1, 3, 4], None, 2),
        ([1, 2, 3, 4], None, 0),
        ([], None, 0),
        ([0, 2, 3], 6, 4),  # the docstring's example
        ([3, 4], 6, 5),  # a query at position 20 sees keys from 15
        ([0, 1, 2], 6, 3),
        ([4], 6, 0),
        ([4], 4, 5),
    ],
)
def test_ready_pages_are_all_that_the_next_query_sees(known: list[int], window: int | None, ready: int) -> None:
    keys, pool = keys_of(list(range(20))), BlockPool(8)
    pages = pool.take(5)
    for index in known:
        pool.publish(pages[index], keys[index])
    assert ready_pages(keys, pool, window, page_size=4) == ready


def fork(key: str, output_index: int, prompt: int = 7) -> Sequence:
    return sequence(key, prompt, 6, text=1, family="f", output_index=output_index)


def lengths(plan: StepPlan) -> list[tuple[int, int]]:
    return [(c.start, c.length) for c in plan.chunks]


@pytest.mark.parametrize(("prompt", "ready"), [(16, 12), (17, 16), (18, 16), (4, 0), (5, 4)])
def test_a_repeated_prompt_is_found_in_whole_pages_but_for_its_last_token(prompt: int, ready: int) -> None:
    bench = Bench(LIMITS)
    bench.add(sequence("a", prompt, 3, text=1))
    bench.finish()
    bench.add(sequence("b", prompt, 3, text=1))
    assert lengths(bench.step()) == [(ready, prompt - ready)]
    assert bench.sampled["b"][0].sequence.cached == ready
    bench.finish()


def test_what_was_put_out_is_found_too() -> None:
    bench = Bench(LIMITS)
    bench.add(sequence("a", 5, 8, text=1))
    bench.finish()
    text = bench.sampled["a"][-1].sequence.token_ids
    turn = sequence("b", 20, 2)
    turn.token_ids = [*text, 1, 2, 3, 4, 5, 6, 0]
    bench.add(turn)
    assert lengths(bench.step()) == [(12, 8)], "three pages of thirteen tokens, the last of which was never run"


def test_one_that_still_runs_is_found_as_well() -> None:
    bench = Bench(LIMITS)
    bench.add(sequence("a", 9, 20, text=1))
    bench.step()
    bench.add(sequence("b", 9, 3, text=1))
    assert lengths(bench.step()) == [(9, 1), (8, 1)]
    assert bench.scheduler.pool.free_count == 40 - 3 - 1, "two pages are held by both"
    bench.finish()


def test_without_prefix_caching_nothing_is_found() -> None:
    bench = Bench(dataclasses.replace(LIMITS, prefix_caching=False))
    for key in "ab":
        bench.add(sequence(key, 9, 3, text=1))
        assert lengths(bench.step()) == [(0, 9)]
        bench.finish()


@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize(("prompt", "copies"), [(7, 3), (5, 0), (6, 3), (1, 0), (9, 0)])
def test_outputs_of_one_request_run_its_prompt_once(prompt: int, copies: int, caching: bool) -> None:
    """Positions 0 to prompt - 2 are shared: a page that these fill half is copied, whole ones are not."""
    bench = Bench(dataclasses.replace(LIMITS, prefix_caching=caching))
    bench.add(*[fork(f"s{i}", i, prompt) for i in range(4)])
    assert lengths(bench.step()) == [(0, prompt)] if prompt > 1 else [(0, 1)] * 4
    plan = bench.step() if prompt > 1 else StepPlan(0, 0, "", (), (), ())
    assert len(plan.copies) == copies
    assert sum(length for _, length in lengths(plan)) == (4 if prompt > 1 else 0), "each runs one token"
    bench.finish()
    assert len({tuple(bench.tokens(f"s{i}")) for i in range(4)}) > 1, "the outputs differ"
    assert bench.scheduler.pool.free_count == 40


def test_a_fork_waits_while_its_sibling_is_in_the_middle_of_the_prompt() -> None:
    bench = Bench(dataclasses.replace(LIMITS, max_tokens_per_step=4))
    bench.add(fork("s0", 0, 11), fork("s1", 1, 11))
    assert lengths(bench.step()) == [(0, 4)]
    assert lengths(bench.step()) == [(4, 4)]
    assert lengths(bench.step()) == [(8, 3), (10, 1)][:1]
    assert lengths(bench.step()) == [(11, 1), (10, 1)]
    bench.finish()


def test_a_page_is_not_shared_once_the_window_has_passed_it() -> None:
    limits = dataclasses.replace(LIMITS, window=6)
    bench = Bench(limits)
    bench.add(sequence("a", 21, 20, text=1))
    for _ in range(12):
        bench.step()
    bench.add(sequence("b", 21, 3, text=1))
    bench.finish()  # the head holds every key that is seen against the text


def test_who_wants_the_prompts_scores_runs_all_of_it() -> None:
    bench = Bench(LIMITS)
    bench.add(sequence("a", 9, 3, text=1))
    bench.finish()
    scored = sequence("b", 9, 3, text=1)
    scored.request = dataclasses.replace(scored.request, prompt_logprobs=2)
    assert find_prefix_hit(scored, [], bench.scheduler.pool, LIMITS) == PrefixHit()


def test_after_the_head_is_lost_nothing_is_found() -> None:
    bench = Bench(LIMITS)
    bench.add(sequence("a", 9, 3, text=1))
    bench.finish()
    bench.head.restart()
    bench.scheduler.requeue_all()
    bench.add(sequence("b", 9, 3, text=1))
    assert lengths(bench.step()) == [(0, 9)]
    bench.finish()


def test_a_forgotten_page_is_computed_again() -> None:
    bench = Bench(dataclasses.replace(LIMITS, page_count=6))
    bench.add(sequence("a", 9, 3, text=1))
    bench.finish()
    bench.add(sequence("c", 20, 3, text=2))
    bench.finish()
    bench.add(sequence("b", 9, 3, text=1))
    assert lengths(bench.step())[0][0] < 8
    bench.finish()
