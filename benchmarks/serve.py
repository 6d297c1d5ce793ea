"""How `eightwinds serve` bears load: the demo checkpoint on a local Ray, asked over gRPC.

    python -m benchmarks.serve [batching] [interference] [prefix] [overload]     (default: all)

- batching: 64 clients with long-tailed requests, continuous batching against static: the same requests in waves.
- interference: streams at a steady pace while a prompt of 2,000 tokens arrives.
- prefix: time to the first token of a prompt of 1,000 tokens, sent once and again.
- overload: five times the measured capacity for two minutes.

What is compared is measured in one run: ratios stand, absolute numbers are those of this machine at this hour.
"""

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from benchmarks.load import (
    SUMMARY,
    Job,
    Load,
    Outcome,
    long_tailed,
    median,
    percentile,
    some_prompt,
    summary,
    tokens_per_second,
)
from benchmarks.report import publish, say
from benchmarks.server import serving

_SEED = 2026


def _on(address: str, work: Callable[[Load], Awaitable[None]]) -> None:
    async def run() -> None:
        load = Load(address)
        await load.closed_loop(long_tailed(random.Random(0), 32, median=8, longest=16), 32)  # what is lazy, is so once
        await work(load)
        await load.close()

    asyncio.run(run())


def batching(seconds: float = 120.0, skip: float = 20.0, clients: int = 64) -> None:
    """Clients that never rest against waves, in which all wait for the last; the first `skip` seconds do not count.

    A wave's time to the first token counts from when the wave is sent, without the wait for the wave before it.
    """
    rows: list[list[str]] = []
    rates: dict[str, float] = {}
    for kind in ("static", "continuous"):

        async def work(load: Load, kind: str = kind) -> None:
            ask = load.closed_loop if kind == "continuous" else load.waves
            outcomes = await ask(long_tailed(random.Random(_SEED), None), clients, skip + seconds)
            rates[kind] = tokens_per_second(outcomes, skip)
            rows.append([kind, f"{rates[kind]:.0f}", *summary(outcomes)])

        with serving(f"scheduler.max_running_requests={clients}") as server:
            _on(server.address, work)
        say(f"batching: {kind} {rates[kind]:.0f} tokens/s")
    publish(
        "serve_batching",
        f"Continuous against static batching, {clients} clients with long-tailed requests for {seconds:g} s",
        ("batching", "steady tokens/s", *SUMMARY),
        rows,
        f"Output tokens per second, continuous / static: {rates['continuous'] / rates['static']:.2f} x",
    )


def interference(streams: int = 16, tokens: int = 1500, prompts: int = 4) -> None:
    """Gaps of steady streams while long prompts come in, one by one, against those while none does."""
    rng, rows, p99 = random.Random(_SEED), [], []

    async def work(load: Load) -> None:
        steady = [Job(some_prompt(rng, 16), tokens) for _ in range(streams)]
        running = [asyncio.create_task(load.ask(job)) for job in steady]
        windows = []
        await asyncio.sleep(2.0)
        begin = time.monotonic()
        await asyncio.sleep(3.0)
        quiet = (begin, time.monotonic())
        for _ in range(prompts):
            prompt = await load.ask(Job(some_prompt(rng, 2000), 2))
            windows.append((prompt.sent, prompt.arrivals[0]))
            await asyncio.sleep(0.5)
        if any(task.done() for task in running):
            raise SystemExit("the streams ended before the last prompt did: give them more tokens")
        outcomes = await asyncio.gather(*running)
        for name, during in (("no prompt", [quiet]), ("while a prompt of 2,000 tokens runs", windows)):
            gaps = _gaps(outcomes, during)
            p99.append(percentile(gaps, 99))
            rows.append([name, str(len(gaps)), f"{1000 * percentile(gaps, 50):.1f}", f"{1000 * p99[-1]:.1f}"])
        rows.append(["TTFT of the prompt itself", "", f"{1000 * median(b - a for a, b in windows):.1f}", ""])

    with serving() as server:
        _on(server.address, work)
    publish(
        "serve_interference",
        f"Inter-token gaps of {streams} streams, alone and while prompts of 2,000 tokens come in",
        ("streams", "gaps", "p50 ms", "p99 ms"),
        rows,
        f"p99 with the prompt / without: {p99[1] / p99[0]:.2f} x",
    )


def _gaps(outcomes: list[Outcome], windows: list[tuple[float, float]]) -> list[float]:
    """Gaps that end in one of the windows, or begin there: the last one of a prefill ends after it."""
    return [
        b - a
        for outcome in outcomes
        for a, b in zip(outcome.arrivals, outcome.arrivals[1:], strict=False)
        if any(begin <= b and a <= end for begin, end in windows)
    ]


def prefix(prompts: int = 8) -> None:
    """A prompt of 1,000 tokens, then the same one again."""
    rng, rows, ratios = random.Random(_SEED), [], []

    async def work(load: Load) -> None:
        for number in range(prompts):
            job = Job(some_prompt(rng, 1000), 4)
            first, again = await load.ask(job), await load.ask(job)
            ratios.append(again.ttft / first.ttft)
            rows.append([str(number + 1), f"{1000 * first.ttft:.1f}", f"{1000 * again.ttft:.1f}", f"{ratios[-1]:.3f}"])

    with serving() as server:
        _on(server.address, work)
    note = f"Repeated / first, median: {median(ratios):.3f}"
    header = ("prompt", "first ms", "repeated ms", "ratio")
    publish("serve_prefix", "Time to the first token of a prompt of 1,000 tokens", header, rows, note)


def overload(seconds: float = 120.0, factor: float = 5.0, clients: int = 64) -> None:
    """A full server with an empty queue; then `factor` times what it can do; then a single request."""
    rng, rows, notes = random.Random(_SEED), [], []

    async def work(load: Load) -> None:
        begin = time.monotonic()
        full = await load.closed_loop(long_tailed(rng, None), clients, 60.0)
        capacity = sum(o.code == "OK" for o in full) / (time.monotonic() - begin)
        full = [o for o in full if o.code == "OK"]
        say(f"overload: capacity {capacity:.1f} requests/s")
        flood = await load.poisson(long_tailed(rng, None), factor * capacity, seconds, rng)
        done_at = max(o.ended for o in flood)
        alone = await load.ask(Job(some_prompt(rng, 32), 40))
        codes = Counter(o.code for o in flood)
        accepted = [o for o in flood if o.code == "OK"]
        refused = [o for o in flood if o.code == "RESOURCE_EXHAUSTED"]
        for name, outcomes in (("full, empty queue", full), ("overload, accepted", accepted), ("right after", [alone])):
            rows.append([name, *summary(outcomes)])
        base = [o.tpot for o in full if len(o.arrivals) > 1]
        tpot = [o.tpot for o in accepted if len(o.arrivals) > 1]
        waits = [o.retry_seconds for o in refused if o.retry_seconds is not None]
        least, most = percentile(waits, 0), percentile(waits, 100)
        notes.extend(
            [
                f"{len(flood)} requests at {factor:g} x {capacity:.1f} a second for {seconds:g} s: {dict(codes)}",
                "TPOT of accepted requests / of a full server: "
                + ", ".join(f"p{p} {percentile(tpot, p) / percentile(base, p):.2f} x" for p in (50, 99)),
                f"refused with RetryInfo: {len(waits)} of {len(refused)}, {least:.1f} to {most:.1f} s; "
                f"answered in p99 {1000 * percentile([o.ended - o.sent for o in refused], 99):.0f} ms",
                f"the last answer came {done_at - max(o.sent for o in flood):.1f} s after the last request",
            ]
        )

    with serving(f"scheduler.max_running_requests={clients}") as server:
        _on(server.address, work)
        notes.append(f"lines of traceback in the server's log: {server.log().count('Traceback')}")
    publish("serve_overload", "Five times the capacity", ("load", *SUMMARY), rows, "\n\n".join(notes))


SCENARIOS: dict[str, Callable[[], None]] = {
    "batching": batching,
    "interference": interference,
    "prefix": prefix,
    "overload": overload,
}


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    wanted = parser.parse_args().scenarios or list(SCENARIOS)
    if unknown := [name for name in wanted if name not in SCENARIOS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    for name in wanted:
        SCENARIOS[name]()


if __name__ == "__main__":
    main()
