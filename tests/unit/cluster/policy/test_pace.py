"""How much prefill rides along with decodes."""

import pytest

from cluster.policy.pace import Pace
from model.batch import Chunk, StepPlan


def plan(decodes: int = 0, prefill: int = 0) -> StepPlan:
    chunks = [Chunk(i, 9, 1, (), True) for i in range(decodes)]
    if prefill:
        chunks.append(Chunk(decodes, 0, prefill, (), True))
    return StepPlan(0, 1, "head", (), (), tuple(chunks))


def test_nothing_is_held_back_before_anything_is_known() -> None:
    pace = Pace(1.5)
    assert pace.prefill_tokens() is None
    pace.observe(plan(prefill=100), 3.0)
    assert pace.prefill_tokens() is None, "a step of prefill alone says nothing of one that decodes"


def test_the_first_mixed_step_is_a_careful_one() -> None:
    pace = Pace(1.5, least=16)
    pace.observe(plan(decodes=4), 0.01)
    assert pace.prefill_tokens() == 64


@pytest.mark.parametrize(("slowdown", "tokens"), [(1.5, 50), (2.0, 100), (1.01, 16)])
def test_a_mixed_step_takes_no_more_than_the_slowdown(slowdown: float, tokens: int) -> None:
    pace = Pace(slowdown, least=16)
    pace.observe(plan(decodes=4), 0.010)
    pace.observe(plan(decodes=4, prefill=64), 0.010 + 64 * 0.0001)
    assert pace.prefill_tokens() == pytest.approx(tokens, abs=1)


def test_it_follows_a_machine_that_becomes_slower() -> None:
    pace = Pace(1.5, least=1)
    pace.observe(plan(decodes=1), 0.010)
    for cost in [0.0001] * 10 + [0.001] * 40:
        pace.observe(plan(decodes=1, prefill=64), 0.010 + 64 * cost)
    assert pace.prefill_tokens() == pytest.approx(5, abs=1)


def test_prefill_that_costs_nothing_is_not_held_back() -> None:
    pace = Pace(1.5)
    pace.observe(plan(decodes=1), 0.010)
    pace.observe(plan(decodes=1, prefill=64), 0.009)
    assert pace.prefill_tokens() is None
