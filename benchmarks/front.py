"""What the OpenAI-compatible door costs beside gRPC: the same streams over both, in turns, on one server on Ray.

    python -m benchmarks.front [--rounds 9] [--jobs 192]

Both clients read bytes and keep one connection for each stream; gRPC's decodes messages in C, ours over HTTP looks for
an answer's end only. *CPU* is that of the process `serve`, which has both doors.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import psutil

from benchmarks.load import Job, Load, median, some_prompt
from benchmarks.report import publish, say
from benchmarks.server import serving

_STREAMS, _TOKENS = 32, 96
_END = b"0\r\n\r\n"  # of chunked coding
Door = Callable[[Sequence[Job]], Awaitable[None]]


class OverHttp:
    """A stream's connection."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")

    async def open(self) -> "OverHttp":
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        return self

    async def ask(self, job: Job) -> None:
        """Send a job and read its stream to the end; RuntimeError if it has not ended as it should."""
        fields = {"prompt": job.prompt_ids, "max_tokens": job.tokens, "temperature": 0, "ignore_eos": True}
        raw = json.dumps(fields | {"stream": True}).encode()
        self._writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)
        come = bytearray()
        while not come.endswith(_END):
            part = await self._reader.read(1 << 16)
            come += part
            if not part:
                break
        if b'"finish_reason":"length"' not in come or b"data: [DONE]" not in come:
            raise RuntimeError(f"no whole stream: {bytes(come[-500:])!r}")

    def close(self) -> None:
        self._writer.close()


async def over_http(address: str, jobs: Sequence[Job]) -> None:
    """All jobs, so many at once."""
    left = iter(jobs)

    async def client() -> None:
        connection = await OverHttp(address).open()
        for job in left:
            await connection.ask(job)
        connection.close()

    await asyncio.gather(*(client() for _ in range(_STREAMS)))


async def over_grpc(address: str, jobs: Sequence[Job]) -> None:
    """Likewise."""
    load = Load(address)
    outcomes = await load.closed_loop(jobs, _STREAMS)
    await load.close()
    if any(len(outcome.arrivals) != job.tokens for outcome, job in zip(outcomes, jobs, strict=True)):
        raise RuntimeError(f"not all tokens came: { ({outcome.code for outcome in outcomes}) }")


def measured(door: Door, jobs: Sequence[Job], process: psutil.Process) -> tuple[float, float]:
    """Tokens per second, and microseconds of the server's CPU per token."""
    before, begin = process.cpu_times(), time.monotonic()
    asyncio.run(_all(door, jobs))
    seconds, after = time.monotonic() - begin, process.cpu_times()
    tokens = sum(job.tokens for job in jobs)
    busy = after.user + after.system - before.user - before.system
    return tokens / seconds, 1e6 * busy / tokens


async def _all(door: Door, jobs: Sequence[Job]) -> None:
    await door(jobs)


def some_jobs(seed: int, count: int) -> Iterator[Job]:
    """Prompts that nobody has sent before."""
    rng = random.Random(seed)
    return (Job(some_prompt(rng, 16), _TOKENS) for _ in range(count))


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--jobs", type=int, default=192, help="of each round and door")
    parser.add_argument("--no-publish", action="store_true", help="only to see whether it runs")
    arguments = parser.parse_args()
    rows, ratios, costs = list[list[str]](), list[float](), list[float]()
    with serving(f"scheduler.max_running_requests={_STREAMS}") as server:

        async def http(jobs: Sequence[Job]) -> None:
            await over_http(server.http, jobs)

        async def grpc(jobs: Sequence[Job]) -> None:
            await over_grpc(server.address, jobs)

        for door in (grpc, http):
            measured(door, list(some_jobs(0, _STREAMS)), server.process)  # what is lazy, is so once
        for number in range(arguments.rounds):
            doors = (grpc, http) if number % 2 else (http, grpc)  # neither is always the second
            found = {}
            for door in doors:
                jobs = list(some_jobs(1 + 2 * number + (door is http), arguments.jobs))
                found[door.__name__] = measured(door, jobs, server.process)
            (grpc_rate, grpc_cost), (http_rate, http_cost) = found["grpc"], found["http"]
            ratios.append(http_rate / grpc_rate)
            costs.append(http_cost - grpc_cost)
            rates = [f"{grpc_rate:.0f}", f"{http_rate:.0f}", f"{ratios[-1]:.3f}"]
            rows.append([str(number + 1), *rates, f"{grpc_cost:.0f}", f"{http_cost:.0f}"])
            say(f"front: {rows[-1]}")
    note = f"HTTP / gRPC, median: {median(ratios):.3f} x ({min(ratios):.3f} to {max(ratios):.3f}); "
    note += f"CPU of a token, median of the differences: {median(costs):+.0f} us."
    if arguments.no_publish:
        say(note)
        return
    publish(
        "front",
        f"{_STREAMS} streams over HTTP and over gRPC, {_TOKENS} tokens each",
        ("round", "gRPC tokens/s", "HTTP tokens/s", "HTTP / gRPC", "gRPC CPU us/token", "HTTP CPU us/token"),
        rows,
        note,
    )


if __name__ == "__main__":
    main()
