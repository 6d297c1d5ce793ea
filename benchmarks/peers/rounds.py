"""Rounds in which systems get the same works in turns, and the table of what came of them."""

import time
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.load import median
from benchmarks.peers.systems import System
from benchmarks.peers.work import Timing, Work
from benchmarks.report import say

_WARM = Work(4, 32, 8)
Timings = dict[tuple[str, Work], list[Timing]]


def measure(systems: Sequence[System], works: Sequence[Work], rounds: int) -> Timings:
    """Every timing by system and work; progress goes to standard error."""
    timings: Timings = defaultdict(list)
    for round_ in range(rounds):
        for system in systems:
            began = time.monotonic()
            with system.start() as ask:
                say(f"round {round_ + 1} of {rounds}: {system.name} is up after {time.monotonic() - began:.0f} s")
                ask(_WARM, round_)
                for work in works:
                    timings[system.name, work].append(timing := ask(work, round_))
                    rate = work.count * work.tokens / timing.seconds
                    say(f"  {work}: {rate:.1f} tokens/s, TTFT p50 {timing.ttft:.2f} s")
    return timings


def table(timings: Timings, works: Sequence[Work], base: str) -> tuple[tuple[str, ...], list[list[str]], str]:
    """Header, rows and a note: a row for each system, with ratios to the one called `base`."""
    names = dict.fromkeys(name for name, _ in timings)
    rows = [[name, *(_cell(w, timings[name, w], timings[base, w]) for w in works)] for name in names]
    return ("system", *map(str, works)), rows, f"In brackets: times {base}. TTFT is the median."


def _cell(work: Work, timings: Sequence[Timing], base: Sequence[Timing]) -> str:
    def rate(of: Sequence[Timing]) -> float:
        return work.count * work.tokens / median(timing.seconds for timing in of)

    ratio = f" ({rate(timings) / rate(base):.2f} x)" if base and base is not timings else ""
    ttft = median(timing.ttft for timing in timings)
    return f"{rate(timings):.1f}{ratio}" + (f", TTFT {ttft:.2f} s" if ttft == ttft else "")
