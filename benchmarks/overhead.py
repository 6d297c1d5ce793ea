"""What being ready for failures and counting the load cost while nothing fails: CPU-seconds per token.

    python -m benchmarks.overhead [PAIRS]

Three servers of the demo checkpoint stand side by side, as configured by default, without `experts.fault_tolerance`,
and without `load.enabled`. They get the same requests in turn, so what else the machine does meets all of them.
"""

import asyncio
import random
import statistics
import sys
from contextlib import ExitStack

from benchmarks.bare_start import cpu_seconds
from benchmarks.load import Load, long_tailed
from benchmarks.report import publish
from benchmarks.server import Server, serving

_SETTINGS = {
    "as it comes": (),
    "experts.fault_tolerance=false": ("experts.fault_tolerance=false",),
    "load.enabled=false": ("load.enabled=false",),
}
_CLIENTS, _REQUESTS = 16, 64


def main() -> None:
    """Run and publish."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    costs: dict[str, list[float]] = {name: [] for name in _SETTINGS}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(*settings)) for name, settings in _SETTINGS.items()}
        for server in servers.values():
            _cost(server, seed=-1)
        for number in range(pairs):
            for name in random.Random(number).sample(list(servers), len(servers)):
                costs[name].append(_cost(servers[name], number))
            print(f"pair {number + 1} of {pairs}", file=sys.stderr, flush=True)
    whole = costs["as it comes"]
    rows = []
    for name, values in costs.items():
        ratios = [a / b for a, b in zip(whole, values, strict=True)]
        spread = statistics.stdev(ratios) if len(ratios) > 1 else 0.0
        mean = statistics.mean(ratios)
        rows.append(
            [name, f"{1000 * statistics.mean(values):.3f}", f"{mean:.4f}", f"{spread / len(ratios) ** 0.5:.4f}"]
        )
    header = ("server", "CPU ms per token", "as it comes / this", "standard error")
    publish("overhead", f"Processor time per token, {pairs} interleaved rounds of {_REQUESTS} requests", header, rows)


def _cost(server: Server, seed: int) -> float:
    """Seconds of processor time of serve and its actors per token put out."""
    pids = [p.pid for role in ("serve", "actors") for p in server.processes()[role]]

    async def run() -> int:
        load = Load(server.address)
        jobs = long_tailed(random.Random(seed), _REQUESTS, longest=200)
        outcomes = await load.closed_loop(jobs, _CLIENTS)
        await load.close()
        assert all(outcome.code == "OK" for outcome in outcomes)
        return sum(len(outcome.arrivals) for outcome in outcomes)

    before = cpu_seconds(pids)
    tokens = asyncio.run(run())
    return (cpu_seconds(pids) - before) / tokens


if __name__ == "__main__":
    main()
