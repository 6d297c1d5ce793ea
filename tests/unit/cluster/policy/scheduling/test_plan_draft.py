"""A plan while it is made."""

import pytest

from cluster.policy.scheduling.plan_draft import PlanDraft
from model.batch import Chunk, NewSequence, SamplingParams, StepPlan


def chunk(slot: int, length: int) -> Chunk:
    return Chunk(slot, 0, length, (), True)


def test_chunks_use_the_budget_up() -> None:
    draft = PlanDraft(8)
    draft.run(chunk(0, 5))
    draft.run(chunk(1, 2))
    assert draft.budget == 1


@pytest.mark.parametrize(
    ("decodes", "prefill", "left"), [(2, 3, 3), (2, 0, 0), (2, 99, 6), (2, None, 6), (0, 3, 3), (0, 0, 8)]
)
def test_prefill_is_bounded_and_never_to_nothing_in_a_step_without_decodes(
    decodes: int, prefill: int | None, left: int
) -> None:
    draft = PlanDraft(8)
    for slot in range(decodes):
        draft.run(chunk(slot, 1))
    draft.bound_prefill(prefill)
    assert draft.budget == left


def test_the_plan_holds_everything_in_the_order_in_which_it_came() -> None:
    draft = PlanDraft(8)
    news = [NewSequence(slot, (1,), 1, SamplingParams()) for slot in (1, 0)]
    for new in news:
        draft.admitted.append(new)
        draft.run(chunk(new.slot, 2))
    draft.copies += [(7, 3), (5, 4)]
    chunks = (chunk(1, 2), chunk(0, 2))
    assert draft.plan(4, 9, "head", [1, 0]) == StepPlan(4, 9, "head", (1, 0), tuple(news), chunks, ((7, 3), (5, 4)))
