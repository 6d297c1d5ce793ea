"""How throughput grows with concurrency, and how times to tokens grow with load.

    python -m benchmarks.curves CHECKPOINT [--vllm PYTHON] [--requests 1 2 4 8 16 32 64] [--seconds 40]

**Concurrency**: so many requests at once, each of 64 prompt tokens and 64 output tokens, in each system of
`benchmarks.peers`, one after the other. **Load**: such requests come at random moments (a Poisson process), as often as
a share of what the server does at most; TTFT and TPOT of each.
"""

import argparse
import asyncio
import random
from collections.abc import Sequence

from actors.threads import cores
from benchmarks.charts import Point, lines
from benchmarks.load import Job, Load, percentile, some_prompt, tokens_per_second
from benchmarks.peers.systems import System, eightwinds, vllm
from benchmarks.peers.work import Work
from benchmarks.report import publish, say
from benchmarks.server import serving

_PROMPT, _TOKENS = 64, 64
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.1)
_WARM = Work(4, 32, 8)


def concurrency(systems: Sequence[System], counts: Sequence[int]) -> None:
    """Publish a table and a chart."""
    points: dict[str, list[Point]] = {}
    for system in systems:
        with system.start() as ask:
            ask(_WARM, 0)
            found = points.setdefault(system.name, [])
            for count in counts:
                work = Work(count, _PROMPT, _TOKENS)
                found.append((count, count * _TOKENS / ask(work, 0).seconds))
                say(f"{system.name}, {work}: {found[-1][1]:.0f} tokens/s")
    table = [[name, *(f"{rate:.0f}" for _, rate in found)] for name, found in points.items()]
    title = f"Output tokens per second of requests at once, {_PROMPT} + {_TOKENS} tokens each"
    publish("curves_concurrency", title, ("system", *map(str, counts)), table)
    lines("concurrency", title, ("requests at once", "tokens per second"), points)


def load(checkpoint: str, seconds: float) -> None:
    """Publish a table and two charts."""
    table: list[list[str]] = []
    ttft: dict[str, list[Point]] = {"p50": [], "p99": []}
    tpot: dict[str, list[Point]] = {"p50": [], "p99": []}
    with serving(f"model.path={checkpoint}", "model.dtype=bfloat16") as server:
        most = asyncio.run(_most(server.address, seconds))
        say(f"at most {most:.2f} requests a second")
        for share in _SHARES:
            rates, firsts, each = asyncio.run(_at(server.address, share * most, seconds))
            table.append([f"{share:.0%}", f"{share * most:.2f}", f"{rates:.0f}"])
            for points, values in ((ttft, firsts), (tpot, each)):
                p50, p99 = (1000 * percentile(values, percent) for percent in (50, 99))
                points["p50"].append((share, p50))
                points["p99"].append((share, p99))
                table[-1].append(f"{p50:.0f} / {p99:.0f}")
            say(str(table[-1]))
    title = f"Requests of {_PROMPT} + {_TOKENS} tokens at random moments for {seconds:g} s"
    header = ("load", "requests/s", "tokens/s", "TTFT p50/p99 ms", "TPOT p50/p99 ms")
    publish("curves_load", title, header, table, f"100 % are {most:.2f} requests a second: 64 clients that never rest.")
    lines("ttft", "Time to first token", ("share of what the server does at most", "ms"), ttft, logarithmic=False)
    lines("tpot", "Time per output token", ("share of what the server does at most", "ms"), tpot, logarithmic=False)


async def _most(address: str, seconds: float) -> float:
    """Requests a second that 64 clients without rest get through."""
    source, asked = random.Random(1), Load(address)
    jobs = (Job(some_prompt(source, _PROMPT), _TOKENS) for _ in iter(int, 1))
    outcomes = await asked.closed_loop(jobs, 64, seconds)
    await asked.close()
    return tokens_per_second(outcomes, seconds / 4) / _TOKENS


async def _at(address: str, rate: float, seconds: float) -> tuple[float, list[float], list[float]]:
    """Tokens a second, and TTFT and TPOT of each request."""
    source, asked = random.Random(2), Load(address)
    jobs = (Job(some_prompt(source, _PROMPT), _TOKENS) for _ in iter(int, 1))
    outcomes = await asked.poisson(jobs, rate, seconds, source)
    await asked.close()
    if failed := [o.code for o in outcomes if o.code != "OK"]:
        raise SystemExit(f"{len(failed)} of {len(outcomes)} requests failed: {failed[0]}")
    return tokens_per_second(outcomes), [o.ttft for o in outcomes], [o.tpot for o in outcomes]


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--vllm", metavar="PYTHON")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=40.0)
    arguments = parser.parse_args()
    bf16, int8, one = "model.dtype=bfloat16", "experts.quantization=int8", "runtime=in_process"
    systems = [
        eightwinds("eight expert processes", arguments.checkpoint, bf16),
        eightwinds("the same, int8", arguments.checkpoint, bf16, int8),
        eightwinds("one process", arguments.checkpoint, bf16, one),
    ]
    if arguments.vllm:
        systems.append(vllm(arguments.checkpoint, arguments.vllm, cores()))
    concurrency(systems, arguments.requests)
    load(arguments.checkpoint, arguments.seconds)


if __name__ == "__main__":
    main()
