"""The head's memory of its sequences, driven by plans."""

import pytest

from model.batch import Chunk, NewSequence, SampledToken, SamplingParams, StepPlan
from model.slots import Slots

HOT, COLD = SamplingParams(temperature=1.5, seed=4), SamplingParams(temperature=0.0)


def plan(
    admit: tuple[NewSequence, ...] = (), chunks: tuple[Chunk, ...] = (), release: tuple[int, ...] = ()
) -> StepPlan:
    return StepPlan(0, 1, "head", release, admit, chunks)


def test_chunks_are_laid_out_in_the_order_of_the_plan() -> None:
    slots = Slots()
    admit = (NewSequence(4, (10, 11, 12, 13, 14), 5, HOT), NewSequence(0, (20, 21), 2, COLD))
    chunks = (Chunk(4, 0, 3, (7, 8), sample=False), Chunk(0, 0, 2, (3,), sample=True))
    slots.apply(plan(admit, chunks))
    batch = slots.batch(chunks, 2, "cpu")
    assert batch.token_ids_T.tolist() == [10, 11, 12, 20, 21]
    assert batch.positions_T.tolist() == [0, 1, 2, 0, 1]
    assert batch.kv_slots_T.tolist() == [14, 15, 16, 6, 7]
    assert batch.sample_rows.tolist() == [4]
    assert [(s.row, s.length, s.start, list(s.pages)) for s in batch.segments] == [(0, 3, 0, [7, 8]), (3, 2, 0, [3])]


def test_draw_requests_follow_the_sampled_rows() -> None:
    slots = Slots()
    admit = (NewSequence(4, (10, 11, 12), 2, HOT), NewSequence(0, (20, 21), 2, COLD), NewSequence(1, (30,), 1, HOT))
    chunks = (Chunk(0, 0, 2, (3,), True), Chunk(1, 0, 1, (5,), False), Chunk(4, 0, 3, (7,), True))
    slots.apply(plan(admit, chunks))
    requests = slots.draw_requests(chunks)
    assert [r.slot for r in requests] == [0, 4]
    assert [r.params for r in requests] == [COLD, HOT]
    assert [(list(r.token_ids), r.prompt_length) for r in requests] == [([20, 21], 2), ([10, 11, 12], 2)]
    assert slots.batch(chunks, 4, "cpu").sample_rows.tolist() == [1, 5]


def test_drawn_token_is_run_by_the_next_decode_chunk() -> None:
    slots = Slots()
    first = (Chunk(2, 0, 3, (6,), True),)
    slots.apply(plan((NewSequence(2, (10, 11, 12), 3, COLD),), first))
    slots.commit([SampledToken(2, 55)])
    second = (Chunk(2, 3, 1, (), True),)
    slots.apply(plan(chunks=second))
    batch = slots.batch(second, 4, "cpu")
    assert batch.token_ids_T.tolist() == [55] and batch.positions_T.tolist() == [3]
    assert batch.kv_slots_T.tolist() == [6 * 4 + 3]
    assert list(slots.draw_requests(second)[0].token_ids) == [10, 11, 12, 55]


def test_pages_are_added_to_the_table_chunk_by_chunk() -> None:
    slots = Slots()
    slots.apply(plan((NewSequence(0, tuple(range(9)), 9, COLD),), (Chunk(0, 0, 4, (5, 2), False),)))
    chunks = (Chunk(0, 4, 5, (9, 1, 3), True),)
    slots.apply(plan(chunks=chunks))
    assert list(slots.batch(chunks, 2, "cpu").segments[0].pages) == [5, 2, 9, 1, 3]


def test_slot_that_is_released_can_be_filled_by_the_same_plan() -> None:
    slots = Slots()
    slots.apply(plan((NewSequence(0, (1, 2), 2, COLD),), (Chunk(0, 0, 2, (8,), True),)))
    chunks = (Chunk(0, 0, 1, (4,), True),)
    slots.apply(plan((NewSequence(0, (9,), 1, HOT),), chunks, release=(0,)))
    batch = slots.batch(chunks, 2, "cpu")
    assert batch.token_ids_T.tolist() == [9] and list(batch.segments[0].pages) == [4]


def test_tokens_of_the_sequence_that_was_admitted_are_not_changed() -> None:
    slots, new = Slots(), NewSequence(0, (1, 2), 2, COLD)
    slots.apply(plan((new,), (Chunk(0, 0, 2, (8,), True),)))
    slots.commit([SampledToken(0, 3)])
    assert new.token_ids == (1, 2)


def test_traced_rows_are_those_of_sequences_that_asked() -> None:
    slots = Slots()
    admit = (
        NewSequence(0, (1, 2), 2, COLD),
        NewSequence(1, (3, 4, 5), 3, COLD, trace=True),
        NewSequence(2, (6,), 1, COLD, trace=True),
    )
    chunks = (Chunk(0, 0, 2, (0,), True), Chunk(1, 0, 3, (1,), True), Chunk(2, 0, 1, (2,), True))
    slots.apply(plan(admit, chunks))
    assert slots.traced(chunks) == [(1, 2, 3), (2, 5, 1)]


def test_clear_forgets_every_slot() -> None:
    slots, new = Slots(), NewSequence(0, (1, 2), 2, COLD)
    slots.apply(plan((new,)))
    slots.clear()
    slots.apply(plan((new,)))  # would be taken otherwise


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (plan((NewSequence(0, (1,), 1, COLD),)), "slot 0 is taken"),
        (plan(release=(1,)), "1"),
        (plan(chunks=(Chunk(1, 0, 1, (), True),)), "1"),
    ],
)
def test_plan_that_does_not_fit_the_slots_is_a_bug_of_ours(wrong: StepPlan, error: str) -> None:
    slots = Slots()
    slots.apply(plan((NewSequence(0, (1, 2), 2, COLD),)))
    with pytest.raises((AssertionError, KeyError), match=error):
        slots.apply(wrong)


@pytest.mark.parametrize(
    ("chunk", "error"),
    [
        (Chunk(0, 1, 2, (), False), "slot 0: chunk past its tokens"),
        (Chunk(0, 0, 1, (), True), "slot 0: samples before its end"),
    ],
)
def test_chunk_that_does_not_fit_its_tokens_is_a_bug_of_ours(chunk: Chunk, error: str) -> None:
    slots = Slots()
    slots.apply(plan((NewSequence(0, (1, 2), 2, COLD),), (Chunk(0, 0, 0, (3,), False),)))
    with pytest.raises(AssertionError, match=error):
        slots.batch((chunk,), 4, "cpu")
