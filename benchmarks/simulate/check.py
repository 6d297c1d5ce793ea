"""The simulator beside what it simulates: steps of eight expert processes on this machine, some behind a slow link."""

import itertools
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median as middle

from actors.head import Head
from actors.micro_batches import MicroBatches
from benchmarks.echoes import channels
from benchmarks.overlap import Line, serving
from benchmarks.overlap import run as run_steps
from benchmarks.report import RESULTS, publish, say
from benchmarks.simulate.calibration import Calibration, between, calibrate
from benchmarks.simulate.cluster import Layout, Link, Seat, Shape
from benchmarks.simulate.events import Simulation, Work

_PROMPT, _STEPS = 64, 24
KEPT = RESULTS / "calibration.json"


@dataclass(frozen=True, slots=True)
class Point:
    """Decodes at once, or prompts of 64 tokens in one step; a link's delay one way, in ms; micro-batches."""

    requests: int
    prefill: bool = False
    delay: float = 0.0
    micro_batches: int = 1

    def __str__(self) -> str:
        what = f"{self.requests} prompts of {_PROMPT}" if self.prefill else f"{self.requests} decodes"
        ways = ", two micro-batches" if self.micro_batches == 2 else ""
        return f"{what}, {self.delay:g} ms one way{ways}"

    def predicted(self, shape: Shape, calibration: Calibration) -> float:
        """Seconds of a step, by the simulator."""
        machine = calibration.machine(shape.config)
        seat = Seat(machine, tuple(range(shape.config.num_local_experts)))
        layout = Layout(calibration.head(), (seat,), Link(delay=self.delay / 1e3))
        tokens = self.requests * (_PROMPT if self.prefill else 1)
        return Simulation(shape, layout, Work(tokens, self.requests), self.micro_batches).seconds()


POINTS = (
    Point(1),
    Point(8),
    Point(32),
    Point(8, prefill=True),
    Point(32, delay=1.0),
    Point(32, delay=5.0),
    Point(32, delay=5.0, micro_batches=2),
)


def run(checkpoint: str, rounds: int) -> None:
    """Calibrate, predict and measure in turns, and publish both."""
    line = multiprocessing.get_context("spawn").Value("d", 0.0)
    numbers: list[dict[str, float]] = []
    said, seen = defaultdict[Point, list[float]](list), defaultdict[Point, list[float]](list)
    with serving(checkpoint, line) as (head, router), channels() as (near, far):
        shape, epochs = Shape(head.config), itertools.count(1)
        head.micro_batches = MicroBatches(1)
        for number in range(rounds):
            before = calibrate(head, router, near, far, lambda: next(epochs))
            points = list(_measured(head, line, epochs))
            after = calibrate(head, router, near, far, lambda: next(epochs))
            calibration = between(before, after)
            numbers.append(calibration.as_numbers())
            say(f"round {number + 1}: {calibration}")
            for point, seconds in points:
                seen[point].append(seconds)
                said[point].append(point.predicted(shape, calibration))
                say(f"  {point}: {1e3 * seconds:.1f} ms, simulated {1e3 * said[point][-1]:.1f}")
    kept = {name: middle(each[name] for each in numbers) for name in numbers[0]}
    KEPT.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    rows = []
    for point in POINTS:
        simulated, measured = middle(said[point]), middle(seen[point])
        rows.append([str(point), f"{1e3 * measured:.1f}", f"{1e3 * simulated:.1f}", f"{simulated / measured:.2f} x"])
    header = ("step", "measured, ms", "simulated, ms", "")
    publish("simulate_check", f"Simulated and measured steps, median of {rounds} rounds", header, rows)


def _measured(head: Head, line: Line, epochs: Iterator[int]) -> Iterator[tuple[Point, float]]:
    """Each point's seconds of a step, and none of its own for prefill: it is the first step of such a run."""
    for point in POINTS:
        line.value, head.micro_batches = point.delay / 1e3, MicroBatches(point.micro_batches)
        first, later = run_steps(head, point.requests, _STEPS, next(epochs))
        if point.prefill:  # the first of all may meet cold memory
            first, _ = run_steps(head, point.requests, 1, next(epochs))
        yield point, first if point.prefill else later
    line.value, head.micro_batches = 0.0, MicroBatches(1)
