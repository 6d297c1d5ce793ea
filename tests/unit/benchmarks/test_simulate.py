"""The simulator's steps, against sums by hand."""

from dataclasses import replace

import pytest

from benchmarks.simulate.cluster import HeadCosts, Layout, Link, Machine, Seat, Shape
from benchmarks.simulate.events import Lanes, Simulation, Work, step_seconds
from model.config import MixtralConfig

EVERY = tuple(range(8))
MODEL = MixtralConfig(hidden_size=500, intermediate_size=1000, num_hidden_layers=2, num_experts_per_tok=8)
SHAPE = Shape(
    MODEL
)  # a token goes to all experts, so that nothing is left to chance: 3 MB a layer's expert, 1 kB a row
HEAD = HeadCosts(step=0.5, sequence=0.25, layer=1.0, token=0.125)


def machine(lanes: int = 1) -> Machine:
    """3 s to read an expert, 1 s for each row."""
    return Machine("m", reads=1e6, computes=3e6, lanes=lanes)


def seconds(layout: Layout, tokens: int = 1, micro_batches: int = 1) -> float:
    return Simulation(SHAPE, layout, Work(tokens, tokens), micro_batches).seconds()


def test_lanes_are_taken_in_turns() -> None:
    lanes = Lanes(2)
    assert [lanes.take(0.0, 3.0), lanes.take(1.0, 1.0), lanes.take(1.0, 1.0)] == [3.0, 2.0, 3.0]
    assert lanes.waits(1.0) == 2.0


@pytest.mark.parametrize(("lanes", "calls_in_a_row"), [(1, 8), (2, 4), (8, 1), (100, 1)])
def test_calls_share_the_lanes_of_a_machine(lanes: int, calls_in_a_row: int) -> None:
    layout = Layout(HEAD, (Seat(machine(lanes), EVERY, away=False),))
    layers = 2 * (1.0 + 2 * 0.125 + calls_in_a_row * (3.0 + 2 * 1.0))
    assert seconds(layout, tokens=2) == pytest.approx(layers + 0.5 + 2 * 0.25)


def test_messages_leave_one_after_the_other_and_answers_come_so() -> None:
    """A row takes 0.1 s each way and the link another 0.2: the last of eight leaves after 0.8 s."""
    seats = tuple(Seat(machine(), (expert,)) for expert in EVERY)
    link = Link(rate=10_000.0, delay=0.2)
    layer = 1.125 + 8 * 0.1 + 0.2 + 4.0 + 0.1 + 0.2
    assert seconds(Layout(HEAD, seats, link)) == pytest.approx(2 * layer + 0.75)
    nearer = (replace(seats[0], away=False), *seats[1:])
    assert seconds(Layout(HEAD, nearer, link)) == pytest.approx(2 * (layer - 0.1) + 0.75)


def test_messages_take_time_of_the_head() -> None:
    """Half of a call and of its bytes before it leaves, half when the answer comes, which is meanwhile for all but the
    last here.
    """
    seats = tuple(Seat(machine(), (expert,), away=False) for expert in EVERY)
    costs = replace(HEAD, call=0.2, byte=2e-4)
    layer = 1.125 + 8 * (0.1 + 0.1) + 4.0 + (0.1 + 0.1)
    assert seconds(Layout(costs, seats)) == pytest.approx(2 * layer + 0.75)


def test_a_slow_machine_decides_and_a_better_placement_helps() -> None:
    slow = Machine("slow", reads=0.5e6, computes=1.5e6)
    even = Layout(HEAD, (Seat(machine(), EVERY[:4], away=False), Seat(slow, EVERY[4:], away=False)))
    by_speed = Layout(HEAD, (Seat(machine(), EVERY[:5], away=False), Seat(slow, EVERY[5:], away=False)))
    assert seconds(even) == pytest.approx(2 * (1.125 + 4 * 8.0) + 0.75)
    assert seconds(by_speed) == pytest.approx(2 * (1.125 + 3 * 8.0) + 0.75)


def test_two_micro_batches_hide_a_delay_and_are_chosen_only_then() -> None:
    seats = tuple(Seat(Machine("m", 1e12, 1e12), (expert,)) for expert in EVERY)
    far = Layout(HeadCosts(0.0, 0.0, 0.0, 1.0), seats, Link(delay=8.0))
    assert seconds(far, 16) == pytest.approx(2 * (16 + 16), rel=1e-3)
    assert seconds(far, 16, 2) == pytest.approx(2 * (8 + 16) + 8, rel=1e-3)
    assert step_seconds(SHAPE, far, Work(16, 16)) == pytest.approx(seconds(far, 16, 2))
    near = replace(far, head=replace(far.head, layer=5.0), link=Link())
    assert step_seconds(SHAPE, near, Work(16, 16)) == pytest.approx(seconds(near, 16))


def test_replicas_split_large_calls_only() -> None:
    seats = tuple(Seat(machine(), (expert,), away=False) for _ in range(2) for expert in EVERY)
    layout = Layout(HeadCosts(0.0, 0.0, 0.0, 0.0), seats)
    assert seconds(layout, 4) == pytest.approx(2 * 7.0)  # 4 s of rows are not twice the 3 s of reading
    assert seconds(layout, 8) == pytest.approx(2 * 7.0)


def test_heads_share_experts_and_not_requests() -> None:
    seats = tuple(Seat(machine(), (expert,), away=False) for expert in EVERY)
    costs = HeadCosts(0.0, 0.0, 0.0, 0.0)
    assert seconds(Layout(costs, seats, heads=2)) == pytest.approx(2 * seconds(Layout(costs, seats)))
    idle = HeadCosts(100.0, 0.0, 0.0, 0.0)  # experts wait for the heads
    assert seconds(Layout(idle, seats, heads=2)) == pytest.approx(seconds(Layout(idle, seats)), rel=0.1)


def test_a_popular_expert_takes_longer() -> None:
    shape = Shape(replace(MODEL, num_experts_per_tok=2))
    seats = tuple(Seat(machine(), (expert,), away=False) for expert in EVERY)
    layout, work = Layout(HEAD, seats), Work(32, 32)
    assert step_seconds(shape, layout, work, popularity=(9.0, *[1.0] * 7)) > 1.5 * step_seconds(shape, layout, work)
