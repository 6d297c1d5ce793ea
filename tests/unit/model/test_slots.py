"""The head's memory of its sequences, driven by plans."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.batch import (
    Chunk,
    Constraint,
    ConstraintKind,
    NewSequence,
    SampledToken,
    SamplingParams,
    SequenceFault,
    StepPlan,
)
from model.sampling.sampler import TokenMask
from model.slots import Slots
from tests.sampling import unconstrained

HOT, COLD = SamplingParams(temperature=1.5, seed=4), SamplingParams(temperature=0.0)


def plan(
    admit: tuple[NewSequence, ...] = (), chunks: tuple[Chunk, ...] = (), release: tuple[int, ...] = ()
) -> StepPlan:
    return StepPlan(0, 1, "head", release, admit, chunks)


def test_chunks_are_laid_out_in_the_order_of_the_plan() -> None:
    slots = Slots(unconstrained)
    admit = (NewSequence(4, (10, 11, 12, 13, 14), 5, HOT), NewSequence(0, (20, 21), 2, COLD))
    chunks = (Chunk(4, 0, 3, (7, 8), sample=False), Chunk(0, 0, 2, (3,), sample=True))
    slots.apply(plan(admit, chunks))
    batch = slots.batch(chunks, 2, "cpu")
    assert batch.token_ids_T.tolist() == [10, 11, 12, 20, 21]
    assert batch.positions_T.tolist() == [0, 1, 2, 0, 1]
    assert batch.kv_rows_T.tolist() == [14, 15, 16, 6, 7]
    assert batch.logit_rows.tolist() == [4]
    assert [(s.row, s.length, s.start, list(s.pages)) for s in batch.segments] == [(0, 3, 0, [7, 8]), (3, 2, 0, [3])]


def peaked(*ids: int) -> torch.Tensor:
    """Logits of which each row is best at its id."""
    return torch.nn.functional.one_hot(torch.tensor(ids), 100).float() * 9


def test_tokens_are_sampled_for_the_chunks_that_sample() -> None:
    slots = Slots(unconstrained)
    admit = (NewSequence(4, (10, 11, 12), 2, COLD), NewSequence(0, (20, 21), 2, COLD), NewSequence(1, (30,), 1, COLD))
    chunks = (Chunk(0, 0, 2, (3,), True), Chunk(1, 0, 1, (5,), False), Chunk(4, 0, 3, (7,), True))
    slots.apply(plan(admit, chunks))
    assert slots.batch(chunks, 4, "cpu").logit_rows.tolist() == [1, 5]
    assert slots.results(peaked(50, 60), chunks) == ((SampledToken(0, 50), SampledToken(4, 60)), (), ())


def test_log_probabilities_of_the_prompt_come_with_its_chunks() -> None:
    """Row p tells of token p + 1, as long as that is prompt; the last row is what the first sampled token is from."""
    slots, logits = Slots(unconstrained), torch.randn(7, 100, generator=torch.Generator().manual_seed(1))
    admit = (
        NewSequence(0, (11, 12, 13, 14, 15, 16), 5, COLD, prompt_logprobs=2),  # resumed: its last token was sampled
        NewSequence(1, (20, 21), 2, COLD),
    )
    expected = [float(row.log_softmax(-1)[i]) for row, i in zip(logits, (12, 13, 14, 15), strict=False)]
    parts = [(0, 3, [0, 1, 2], False, (4,)), (3, 3, [3, 5], True, (5,))]
    told: list[tuple[float, object]] = []
    for start, length, rows, sample, pages in parts:
        chunks = (Chunk(0, start, length, pages, sample), *((Chunk(1, 0, 2, (9,), True),) if sample else ()))
        slots.apply(plan(admit if start == 0 else (), chunks))
        batch = slots.batch(chunks, 4, "cpu")
        assert [start + row for row in batch.logit_rows.tolist()][: len(rows)] == rows
        tokens, (prompt,), _ = slots.results(logits[[*rows, *([6] if sample else [])]], chunks)
        assert [t.token_id for t in tokens] == ([int(logits[5].argmax()), int(logits[6].argmax())] if sample else [])
        assert (prompt.slot, prompt.start) == (0, start + 1)
        told += prompt.tokens
    assert [value for value, _ in told] == pytest.approx(expected, abs=1e-6)
    best = logits[0].log_softmax(-1).topk(2)
    assert told[0][1] == tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def test_constraint_of_a_sequence_is_asked_for_when_it_is_admitted() -> None:
    asked: list[Constraint] = []

    class OnlySeven:
        failure = ""

        def allowed(self) -> NDArray[np.bool_]:
            mask = np.zeros(100, np.bool_)
            mask[7] = True
            return mask

        def push(self, token_id: int) -> None:
            assert token_id == 7

    def make_mask(constraint: Constraint) -> TokenMask:
        asked.append(constraint)
        return OnlySeven()

    constraint = Constraint(ConstraintKind.REGEX, "7*")
    slots, chunks = Slots(make_mask), (Chunk(0, 0, 1, (3,), True), Chunk(1, 0, 1, (4,), True))
    free = NewSequence(1, (2,), 1, COLD)
    slots.apply(plan((NewSequence(0, (1,), 1, SamplingParams(temperature=0, constraint=constraint)), free), chunks))
    tokens, *_ = slots.results(peaked(50, 60), chunks)
    assert asked == [constraint] and [t.token_id for t in tokens] == [7, 60]


def test_sampled_token_is_run_by_the_next_decode_chunk() -> None:
    slots = Slots(unconstrained)
    first = (Chunk(2, 0, 3, (6,), True),)
    slots.apply(plan((NewSequence(2, (10, 11, 12), 3, COLD),), first))
    slots.results(peaked(55), first)
    second = (Chunk(2, 3, 1, (), True),)
    slots.apply(plan(chunks=second))
    batch = slots.batch(second, 4, "cpu")
    assert batch.token_ids_T.tolist() == [55] and batch.positions_T.tolist() == [3]
    assert batch.kv_rows_T.tolist() == [6 * 4 + 3]


def test_pages_are_added_to_the_table_chunk_by_chunk() -> None:
    slots = Slots(unconstrained)
    slots.apply(plan((NewSequence(0, tuple(range(9)), 9, COLD),), (Chunk(0, 0, 4, (5, 2), False),)))
    chunks = (Chunk(0, 4, 5, (9, 1, 3), True),)
    slots.apply(plan(chunks=chunks))
    assert list(slots.batch(chunks, 2, "cpu").segments[0].pages) == [5, 2, 9, 1, 3]


def test_slot_that_is_released_can_be_filled_by_the_same_plan() -> None:
    slots = Slots(unconstrained)
    slots.apply(plan((NewSequence(0, (1, 2), 2, COLD),), (Chunk(0, 0, 2, (8,), True),)))
    chunks = (Chunk(0, 0, 1, (4,), True),)
    slots.apply(plan((NewSequence(0, (9,), 1, HOT),), chunks, release=(0,)))
    batch = slots.batch(chunks, 2, "cpu")
    assert batch.token_ids_T.tolist() == [9] and list(batch.segments[0].pages) == [4]


def test_tokens_of_the_sequence_that_was_admitted_are_not_changed() -> None:
    slots, new = Slots(unconstrained), NewSequence(0, (1, 2), 2, COLD)
    slots.apply(plan((new,), (Chunk(0, 0, 2, (8,), True),)))
    slots.results(peaked(3), (Chunk(0, 0, 2, (8,), True),))
    assert new.token_ids == (1, 2)


def test_traced_rows_are_those_of_sequences_that_asked() -> None:
    slots = Slots(unconstrained)
    admit = (
        NewSequence(0, (1, 2), 2, COLD),
        NewSequence(1, (3, 4, 5), 3, COLD, routing=True),
        NewSequence(2, (6,), 1, COLD, routing=True),
    )
    chunks = (Chunk(0, 0, 2, (0,), True), Chunk(1, 0, 3, (1,), True), Chunk(2, 0, 1, (2,), True))
    slots.apply(plan(admit, chunks))
    assert slots.routed(chunks) == [(1, 2, 3), (2, 5, 1)]


def test_clear_forgets_every_slot() -> None:
    slots, new = Slots(unconstrained), NewSequence(0, (1, 2), 2, COLD)
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
    slots = Slots(unconstrained)
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
    slots = Slots(unconstrained)
    slots.apply(plan((NewSequence(0, (1, 2), 2, COLD),), (Chunk(0, 0, 0, (3,), False),)))
    with pytest.raises(AssertionError, match=error):
        slots.batch((chunk,), 4, "cpu")


def test_a_mask_without_a_way_on_is_a_fault_and_its_batch_mate_goes_on() -> None:
    """It ended its output with STOP, as if the text were whole."""

    class Stuck:
        failure = ""

        def __init__(self, early: bool) -> None:
            self._early = early

        def allowed(self) -> NDArray[np.bool_]:
            if self._early:
                self.failure = "no way on"
            mask = np.zeros(100, np.bool_)
            mask[2] = True
            return mask

        def push(self, token_id: int) -> None:
            assert not self._early, "nothing was allowed"
            self.failure = "wrong id"

    constraint = Constraint(ConstraintKind.REGEX, "x")
    held = SamplingParams(temperature=0, constraint=constraint)
    for early, reason in ((True, "no way on"), (False, "wrong id")):
        slots = Slots(lambda constraint, early=early: Stuck(early))  # type: ignore[misc]
        chunks = (Chunk(0, 0, 1, (3,), True), Chunk(1, 0, 1, (4,), True))
        slots.apply(plan((NewSequence(0, (1,), 1, held), NewSequence(1, (2,), 1, COLD)), chunks))
        tokens, _, faults = slots.results(peaked(50, 60), chunks)
        assert [t.token_id for t in tokens] == [60]
        assert faults == (SequenceFault(0, "constraint", reason),)
