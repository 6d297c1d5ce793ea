"""The share of a token's processor time that fault tolerance and the counting of usage take while nothing fails.

    python -m benchmarks.overhead [ROUNDS]

A token's processor time is measured of `serve` and its nine actors, which each round's `serve` adopts; the router's
part of it by itself (`benchmarks.bookkeeping`), because of a whole server chance is more than what is looked for: 3 %
from round to round, when servers with and without either were compared.
"""

import asyncio
import random
import statistics
import sys
from pathlib import Path

from benchmarks.bare_start import cpu_seconds
from benchmarks.bookkeeping import layer_costs
from benchmarks.load import Job, Load, some_prompt
from benchmarks.report import publish
from benchmarks.server import Server, serving_in, state_folder
from cluster.engine.served_model import DEMO_FOLDER
from model.config import MixtralConfig

_CLIENTS, _TOKENS, _WARM_TOKENS = 16, 200, 20


def main() -> None:
    """Run and publish."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with state_folder() as state:
        _cost(state, seed=-1)
        costs = []
        for number in range(rounds):
            costs.append(_cost(state, number))
            print(f"round {number + 1} of {rounds}: {1000 * costs[-1]:.3f} ms", file=sys.stderr, flush=True)
    mean = statistics.mean(costs)
    error = statistics.stdev(costs) / rounds**0.5 if rounds > 1 else 0.0
    rows = [[f"{1000 * value:.3f}" for value in (mean, statistics.median(costs), error)]]
    header = ("CPU ms per token", "median", "standard error")
    title = f"Processor time per token, {rounds} rounds of {_CLIENTS} requests of {_TOKENS} tokens"
    publish("overhead", title, header, rows, "Of `serve` and its nine actors together.\n\n" + _bookkeeping(mean))


def _cost(state: Path, seed: int) -> float:
    """Seconds of processor time of serve and its actors per token put out."""
    with serving_in(state, keep_actors=True) as server:
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
    for name in ("fault tolerance", "counting"):
        more = costs["all"] - costs[name]
        share = more * model.num_hidden_layers / _CLIENTS / token_seconds
        lines.append(
            f"{name.capitalize()} takes {1e6 * more:.1f} of {1e6 * costs['all']:.1f} µs: {share:.2%} of a token's time."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
