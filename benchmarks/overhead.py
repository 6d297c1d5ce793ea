"""What being ready for failures and counting the load cost while nothing fails: CPU-seconds per token.

    python -m benchmarks.overhead [ROUNDS]

`serve` is started as configured by default, once more in the same way, without `experts.fault_tolerance`, and without
`load.enabled`; in each round in random order, and then once more in the opposite one, so that a machine that becomes
slower meanwhile is as bad for all. Each time it adopts the same nine actors and gets the same requests, so that a
difference is one of settings and not of processes. The default's second row says what chance does.

Chance is more than what is looked for, so the router's part of it, which is all that the settings change, is measured
by itself, too (`benchmarks.bookkeeping`), and held against the processor time of a token.
"""

import asyncio
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bare_start import cpu_seconds
from benchmarks.bookkeeping import layer_costs
from benchmarks.load import Job, Load, some_prompt
from benchmarks.report import publish
from benchmarks.server import Server, serving_in, state_folder
from cluster.engine.served_model import DEMO_FOLDER
from model.config import MixtralConfig

_DEFAULT = "as it comes"
_SETTINGS = {
    _DEFAULT: "",
    "as it comes, again": "",
    "without fault_tolerance": "experts.fault_tolerance=false",
    "without load": "load.enabled=false",
}
_CLIENTS, _TOKENS, _WARM_TOKENS = 16, 200, 20


def main() -> None:
    """Run and publish."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    costs: dict[str, list[float]] = {name: [] for name in _SETTINGS}
    with state_folder() as state:
        _cost(state, "", seed=-1)
        for number in range(rounds):
            for name, cost in _round(state, number).items():
                costs[name].append(cost)
            last = ", ".join(f"{name} {1000 * values[-1]:.3f}" for name, values in costs.items())
            print(f"round {number + 1} of {rounds}: {last}", file=sys.stderr, flush=True)
    rows = [_row(name, values, costs[_DEFAULT]) for name, values in costs.items()]
    header = ("server", "CPU ms per token", "as it comes / this", "median", "standard error")
    title = f"Processor time per token, {rounds} rounds of twice {_CLIENTS} requests of {_TOKENS} tokens"
    notes = "Of `serve` and its nine actors together. Ratios are within a round.\n\n"
    publish("overhead", title, header, rows, notes + _bookkeeping(statistics.mean(costs[_DEFAULT])))


def _round(state: Path, number: int) -> dict[str, float]:
    order = random.Random(number).sample(list(_SETTINGS), len(_SETTINGS))
    found: dict[str, list[float]] = {name: [] for name in _SETTINGS}
    for name in [*order, *reversed(order)]:
        found[name].append(_cost(state, _SETTINGS[name], number))
    return {name: statistics.mean(values) for name, values in found.items()}


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


def _cost(state: Path, setting: str, seed: int) -> float:
    """Seconds of processor time of serve and its actors per token put out."""
    with serving_in(state, *([setting] if setting else []), keep_actors=True) as server:
        asyncio.run(_run(server, seed, _WARM_TOKENS))  # what happens once has happened then
        pids = [p.pid for role in ("serve", "actors") for p in server.processes()[role]]
        assert len(pids) == 10, f"serve and nine actors: {pids}"
        before = cpu_seconds(pids)
        tokens = asyncio.run(_run(server, seed, _TOKENS))
        return (cpu_seconds(pids) - before) / tokens


async def _run(server: Server, seed: int, tokens: int) -> int:
    """Tokens put out; all requests are of a size, so that every step has as many rows."""
    rng, load = random.Random(seed), Load(server.address)
    jobs = [Job(some_prompt(rng, 16), tokens) for _ in range(_CLIENTS)]
    outcomes = await load.closed_loop(jobs, _CLIENTS)
    await load.close()
    assert all(outcome.code == "OK" for outcome in outcomes)
    return sum(len(outcome.arrivals) for outcome in outcomes)


def _bookkeeping(token_seconds: float) -> str:
    """The router's part, in words: each step of `_CLIENTS` tokens is one pass through all layers."""
    model = MixtralConfig.load(DEMO_FOLDER)
    costs = layer_costs(_CLIENTS, model.hidden_size)
    lines = [f"The router by itself, `benchmarks.bookkeeping`, per layer of {_CLIENTS} tokens, while nothing fails:"]
    for name in ("fault_tolerance", "load"):
        more = costs["all"] - costs[name]
        share = more * model.num_hidden_layers / _CLIENTS / token_seconds
        lines.append(f"`{name}` takes {1e6 * more:.1f} of {1e6 * costs['all']:.1f} µs: {share:.2%} of a token's time.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
