"""How much prefill rides along with decodes."""

import itertools
import random
from collections.abc import Callable

import pytest

from cluster.policy.scheduling.prefill_budget import PrefillBudget, StepCost
from model.batch import Chunk, StepPlan


def plan(decodes: int = 0, prefill: int = 0) -> StepPlan:
    chunks = [Chunk(i, 9, 1, (), True) for i in range(decodes)]
    if prefill:
        chunks.append(Chunk(decodes, 0, prefill, (), True))
    return StepPlan(0, 1, "head", (), (), tuple(chunks))


def drive(
    budget: PrefillBudget, decodes: int, steps: int, cost: Callable[[int, int], float], waiting: int = 10**9
) -> list[int]:
    """Prefill tokens of each step, with so many of them waiting, on a machine with this cost of a step."""
    used = []
    for _ in range(steps):
        used.append(min(budget.tokens(decodes, 0), waiting))
        waiting -= used[-1]
        budget.observe(plan(decodes, used[-1]), cost(decodes, used[-1]))
    return used


def machine(decodes: int, prefill: int) -> float:
    return 0.020 + 0.0005 * decodes + 0.0002 * prefill


def test_the_cost_of_a_step_is_recovered_from_noisy_ones() -> None:
    rng, cost = random.Random(1), StepCost()
    for _ in range(400):
        decodes, prefill = rng.randint(1, 64), rng.choice([0, rng.randint(1, 200)])
        cost.observe(decodes, prefill, machine(decodes, prefill) * rng.uniform(0.9, 1.1))
    assert cost.expect(32, 0) == pytest.approx(machine(32, 0), rel=0.1)
    assert cost.prefill == pytest.approx(0.0002, rel=0.15)


def test_the_first_step_beside_decodes_goes_without_prefill_and_the_second_is_a_careful_one() -> None:
    budget = PrefillBudget(1.5, least=16)
    assert budget.tokens(4, 0) == 0
    budget.observe(plan(prefill=100), 3.0)
    assert budget.tokens(4, 0) == 0, "a step of prefill alone says nothing of one that decodes"
    budget.observe(plan(decodes=4), 0.01)
    assert budget.tokens(4, 0) == 64


@pytest.mark.parametrize(("slowdown", "tokens"), [(1.5, 65), (2.0, 130), (1.01, 16)])
@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_a_mixed_step_takes_no_more_than_the_slowdown(slowdown: float, tokens: int, noise: float) -> None:
    rng, budget = random.Random(3), PrefillBudget(slowdown, least=16)
    used = drive(budget, 12, 200, lambda d, p: machine(d, p) * rng.uniform(1 - noise, 1 + noise))
    mixed = [tokens for tokens in used[100:] if tokens]
    assert sum(mixed) / len(mixed) == pytest.approx(tokens, rel=0.02 + 2 * noise)


def test_it_sees_what_prefill_costs_although_prefill_never_ends() -> None:
    """The circle to stay out of: no step without prefill, so its cost is overrated, so little of it may enter."""
    budget = PrefillBudget(1.5, least=16)
    drive(budget, 1, 20, machine)
    for decodes in range(2, 65):  # a queue fills the slots
        drive(budget, decodes, 2, machine)
    used = drive(budget, 64, 64, machine)
    assert used.count(0) in (3, 4), "one step in seventeen goes without"
    assert sum(used) / len(used) > 100, "0.5 * 52 ms of room at 0.2 ms a token are 130"


def test_it_follows_a_machine_that_becomes_slower() -> None:
    budget = PrefillBudget(1.5, least=1)
    drive(budget, 4, 50, machine)
    used = drive(budget, 4, 200, lambda d, p: machine(d, 0) + 0.002 * p)
    assert used[-2] == pytest.approx(0.5 * machine(4, 0) / 0.002, abs=3), "5.5, where it was 55"


def test_prefill_that_costs_nothing_is_held_back_by_its_growth_only() -> None:
    used = drive(PrefillBudget(1.5), 4, 16, lambda d, p: machine(d, 0))
    assert used[0] == 0 and used[1] == 64
    assert all(a <= b <= 4 * a for a, b in itertools.pairwise(used[1:])) and used[-1] > 1000


def test_one_hiccup_is_not_taken_for_the_rule() -> None:
    budget = PrefillBudget(1.5)
    drive(budget, 8, 60, machine)
    before = budget.tokens(8, 0)
    budget.observe(plan(8, before), 60.0)
    assert budget.tokens(8, 0) >= before // 4
    assert drive(budget, 8, 200, machine)[-2] == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize(("decodes", "newcomers", "factor"), [(4, 28, 8.0), (16, 1, 1.5), (8, 8, 2.0), (31, 1, 1.5)])
def test_who_waits_counts_as_much_as_who_runs(decodes: int, newcomers: int, factor: float) -> None:
    budget = PrefillBudget(1.5, least=1)
    for used in (0, 30, 60, 90) * 20:
        budget.observe(plan(decodes, used), machine(decodes, used))
    budget._lately = 1e6  # no growth to wait for
    budget.tokens(decodes, 0)  # they are streams, and not of the wave
    tokens = budget.tokens(decodes, newcomers)
    assert machine(decodes, tokens) == pytest.approx(factor * machine(decodes, 0), rel=0.02)


def test_a_burst_fills_the_slots_soon_and_a_lone_prompt_does_not_hold_up_streams() -> None:
    budget = PrefillBudget(1.5)
    drive(budget, 4, 40, machine)
    alone = drive(budget, 16, 10, machine)
    assert sum(machine(16, p) for p in alone) <= 1.55 * sum(machine(16, 0) for _ in alone)
    used = []
    for _ in range(4):
        used.append(budget.tokens(4, 60))
        budget.observe(plan(4, used[-1]), machine(4, used[-1]))
    assert used[-1] > 10 * alone[-1]


def test_a_step_of_prompts_alone_makes_its_fixed_cost_a_twentieth() -> None:
    budget = PrefillBudget(1.5)
    assert budget.tokens(0, 8) == 512, "nothing is known yet"
    for prefill in (512, 40, 512, 300):
        budget.observe(plan(0, prefill), machine(0, prefill))
    tokens = budget.tokens(0, 8)
    assert machine(0, 0) / machine(0, tokens) == pytest.approx(0.048, abs=0.005)
    assert budget.tokens(5, 3) == tokens, "those that decode are of the wave: nothing ran before it"


def test_a_wave_ends_when_none_of_it_waits() -> None:
    budget = PrefillBudget(1.5)
    for used in (0, 30, 60) * 20:
        budget.observe(plan(16, used), machine(16, used))
    budget._lately = 1e6
    budget.tokens(16, 0)
    few, many = budget.tokens(16, 1), budget.tokens(16, 32)
    assert budget.tokens(40, 8) > 3 * few, "24 of the 40 came with the 8: they owe them what they had"
    assert many >= 4 * few
    budget.tokens(48, 0)
    assert budget.tokens(48, 1) < 3 * few, "all 48 are streams now"


def test_a_step_of_prompts_alone_stays_worth_its_while_where_a_step_costs_nothing_by_itself() -> None:
    budget = PrefillBudget(1.5)
    for prefill in (512, 40, 512, 300):
        budget.observe(plan(0, prefill), 0.001 * prefill)
    assert budget.tokens(0, 8) == 256


def test_while_a_burst_fills_the_slots_no_cost_comes_out_negative() -> None:
    """Steps that a fresh server had, in ms: of more decodes the last was shorter, by chance. With a plain fit a decode
    then cost -6 ms, 19 of them less than nothing, and the rest of the burst came in by 16 tokens a step.
    """
    steps = [(1, 0, 37), (2, 0, 37), (2, 64, 175), (4, 0, 56), (4, 0, 57), (4, 0, 55), (2, 0, 43), (4, 0, 64)]
    steps += [(4, 64, 158), (5, 112, 268), (6, 196, 337), (9, 339, 459), (15, 311, 403)]
    budget = PrefillBudget(1.5)
    budget.tokens(1, 31)
    for decodes, prefill, ms in steps:
        budget.observe(plan(decodes, prefill), ms / 1000)
        cost = budget._cost
        assert min(cost.base, cost.decode, cost.prefill) >= 0
    assert budget.tokens(19, 13) > 300


def test_a_step_that_was_expected_to_cost_nothing_is_believed() -> None:
    """Prompts alone explain a burst's steps; one without prefill must not be cut to the 0 that was fitted."""
    cost = StepCost()
    for prefill in (16, 64, 128, 256) * 8:
        cost.observe(8, prefill, 1e-6 * prefill * prefill)
    assert cost.expect(8, 0) == 0
    for _ in range(20):
        cost.observe(8, 0, 0.05)
    assert cost.expect(8, 0) > 0.02
