"""When a step runs as two micro-batches, and where it is cut."""

import random
from collections.abc import Sequence

import pytest

from actors.micro_batches import MicroBatches
from model.batch import Chunk


def chunks(*lengths: int) -> list[Chunk]:
    return [Chunk(slot, 9, length, (), True) for slot, length in enumerate(lengths)]


def lengths(parts: Sequence[Sequence[Chunk]]) -> list[list[int]]:
    return [[chunk.length for chunk in part] for part in parts]


@pytest.mark.parametrize(
    ("step", "parts"),
    [
        ([1] * 8, [[1] * 4, [1] * 4]),
        ([1, 1, 1, 40, 50], [[1, 1, 1], [40, 50]]),
        ([100, 20, 20, 60], [[100], [20, 20, 60]]),
        ([10, 200], [[10], [200]]),
        ([200, 10], [[200], [10]]),
        ([1, 1, 1], [[1, 1, 1]]),
        ([500], [[500]]),
    ],
    ids=["decodes", "decodes and prefill", "prefill", "a long one last", "a long one first", "few", "one"],
)
def test_a_step_is_cut_between_decodes_and_prefill_or_in_the_middle(step: list[int], parts: list[list[int]]) -> None:
    found = MicroBatches(fixed=2).parts(chunks(*step))
    assert lengths(found) == parts
    assert [chunk.slot for part in found for chunk in part] == list(range(len(step))), "in their order"


def test_one_is_one() -> None:
    assert all(len(MicroBatches(fixed=1).parts(chunks(*[1] * n))) == 1 for n in range(1, 40))


def drive(steps: int, one: float, two: float, batches: MicroBatches, noise: float = 0.05) -> list[int]:
    """How many micro-batches each step had, on a machine where they take so long."""
    rng, ways = random.Random(1), []
    for _ in range(steps):
        ways.append(len(batches.parts(chunks(*[1] * 32))))
        batches.observe((one, two)[ways[-1] - 1] * rng.uniform(1 - noise, 1 + noise))
    return ways


@pytest.mark.parametrize(("one", "two", "best"), [(0.1, 0.07, 2), (0.1, 0.15, 1), (0.1, 0.1, 1)])
def test_the_faster_way_is_found(one: float, two: float, best: int) -> None:
    ways = drive(600, one, two, MicroBatches())
    assert ways.count(best) > 0.97 * len(ways)


def test_looking_for_the_faster_way_costs_less_than_two_percent() -> None:
    for two in (0.11, 0.2, 0.4):
        ways = drive(2000, 0.1, two, MicroBatches())
        assert sum(0.1 if way == 1 else two for way in ways) < 1.02 * 0.1 * len(ways)


def test_where_two_lose_by_far_at_one_size_they_are_not_tried_at_others() -> None:
    batches, tried = MicroBatches(), 0
    for size in range(8, 200, 8):
        for _ in range(20):
            tried += (ways := len(batches.parts(chunks(*[1] * size)))) == 2
            batches.observe(0.1 if ways == 1 else 0.2)
    assert tried == 2, "of 480 steps; each size by itself would have had three"


def test_a_single_slow_step_does_not_end_what_is_faster() -> None:
    batches = MicroBatches()
    drive(100, 0.1, 0.07, batches)
    assert len(batches.parts(chunks(*[1] * 32))) == 2
    batches.observe(0.3)
    assert drive(100, 0.1, 0.07, batches).count(2) > 90


def test_it_follows_links_that_become_slow() -> None:
    batches = MicroBatches()
    drive(300, 0.1, 0.105, batches)
    assert drive(1000, 0.2, 0.14, batches)[-100:].count(2) > 95


def test_batches_of_other_sizes_are_timed_apart() -> None:
    batches = MicroBatches()
    drive(50, 0.1, 0.05, batches)
    assert len(batches.parts(chunks(*[1] * 9))) == 1, "nothing is known of nine yet"
    batches.observe(1.0)
    assert len(batches.parts(chunks(*[1] * 32))) == 2


def test_a_step_that_failed_is_not_counted() -> None:
    batches = MicroBatches()
    for _ in range(20):
        assert len(batches.parts(chunks(*[1] * 32))) == 1, "without a timing it stays as it is"


def test_a_step_with_large_results_is_one_run_and_no_trial() -> None:
    """Logits of all tokens of a prompt: halves of them would be held beside the whole."""
    chunks = [Chunk(slot, 0, 64, (), sample=False) for slot in range(2)]
    always = MicroBatches(2)
    assert len(always.parts(chunks)) == 2
    assert always.parts(chunks, large=True) == [tuple(chunks)]
    measuring = MicroBatches()
    for _ in range(20):
        assert measuring.parts(chunks, large=True) == [tuple(chunks)]
        measuring.observe(1.0)
    assert not measuring._timings
