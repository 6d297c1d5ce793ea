"""What being ready for failures and counting the load cost while nothing fails: CPU-seconds per token.

    python -m benchmarks.overhead [ROUNDS]

In each round, in random order, `serve` is started as configured by default, once more in the same way, without
`experts.fault_tolerance`, and without `load.enabled`. Each time it adopts the same nine actors and gets the same
requests, so that a difference is one of settings and not of processes. The default's second run says what chance does.
"""

import asyncio
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bare_start import cpu_seconds
from benchmarks.load import Job, Load, some_prompt
from benchmarks.report import publish
from benchmarks.server import Server, serving_in, state_folder

_SETTINGS = {
    "as it comes": (),
    "as it comes, again": (),
    "experts.fault_tolerance=false": ("experts.fault_tolerance=false",),
    "load.enabled=false": ("load.enabled=false",),
}
_CLIENTS, _TOKENS, _REQUESTS = 16, 160, 48  # all of a size, so that every step has as many rows


def main() -> None:
    """Run and publish."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    costs: dict[str, list[float]] = {name: [] for name in _SETTINGS}
    with state_folder() as state:
        _cost(state, (), seed=-1)
        for number in range(rounds):
            for name in random.Random(number).sample(list(_SETTINGS), len(_SETTINGS)):
                costs[name].append(_cost(state, _SETTINGS[name], number))
            last = ", ".join(f"{name} {1000 * values[-1]:.3f}" for name, values in costs.items())
            print(f"round {number + 1} of {rounds}: {last}", file=sys.stderr, flush=True)
    rows = [_row(name, values, costs["as it comes"]) for name, values in costs.items()]
    header = ("server", "CPU ms per token", "as it comes / this", "median", "standard error")
    title = f"Processor time per token, {rounds} interleaved rounds of {_REQUESTS} requests of {_TOKENS} tokens"
    publish("overhead", title, header, rows, "Of `serve` and its nine actors together. Ratios are within a round.")


def _row(name: str, values: Sequence[float], whole: Sequence[float]) -> list[str]:
    ratios = [a / b for a, b in zip(whole, values, strict=True)]
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else 0.0
    return [
        name,
        f"{1000 * statistics.mean(values):.3f}",
        f"{statistics.mean(ratios):.4f}",
        f"{statistics.median(ratios):.4f}",
        f"{error:.4f}",
    ]


def _cost(state: Path, settings: Sequence[str], seed: int) -> float:
    """Seconds of processor time of serve and its actors per token put out."""
    with serving_in(state, *settings, keep_actors=True) as server:
        asyncio.run(_run(server, seed, _CLIENTS))  # what happens once has happened then
        pids = [p.pid for role in ("serve", "actors") for p in server.processes()[role]]
        assert len(pids) == 10, f"serve and nine actors: {pids}"
        before = cpu_seconds(pids)
        tokens = asyncio.run(_run(server, seed, _REQUESTS))
        return (cpu_seconds(pids) - before) / tokens


async def _run(server: Server, seed: int, requests: int) -> int:
    rng, load = random.Random(seed), Load(server.address)
    jobs = [Job(some_prompt(rng, 16), _TOKENS) for _ in range(requests)]
    outcomes = await load.closed_loop(jobs, _CLIENTS)
    await load.close()
    assert all(outcome.code == "OK" for outcome in outcomes)
    return sum(len(outcome.arrivals) for outcome in outcomes)


if __name__ == "__main__":
    main()
