"""A load on a server: requests with long-tailed lengths, in a closed loop or as a Poisson process, and what each met.

TTFT: from sending to the first token. ITL: between two tokens of a stream; tokens that share a message came together,
and count as gaps of 0. TPOT: mean gap of one request after its first token.
"""

import asyncio
import contextlib
import itertools
import math
import random
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import grpc

from cluster.client.failures import retry_of
from protos.eightwinds.v1 import inference_pb2 as pb
from protos.eightwinds.v1 import inference_pb2_grpc

_DEADLINE = 600.0  # seconds after which a request counts as hung
_FIRST_ID, _LAST_ID = 300, 2000  # ids of the demo's vocabulary that are neither bytes nor control tokens


@dataclass(frozen=True, slots=True)
class Job:
    """A request: a prompt of random ids, and how many tokens to put out, greedily and whatever they are."""

    prompt_ids: tuple[int, ...]
    tokens: int

    def request(self) -> pb.GenerateRequest:
        """As a message."""
        return pb.GenerateRequest(
            prompt=pb.Prompt(token_ids=pb.TokenIds(ids=self.prompt_ids)),
            sampling=pb.Sampling(temperature=0.0),
            stopping=pb.Stopping(max_tokens=self.tokens, ignore_eos=True),
            output=pb.OutputOptions(token_ids=True),
        )


def some_prompt(rng: random.Random, length: int) -> tuple[int, ...]:
    """Random ids that share no prefix with others."""
    return tuple(rng.randint(_FIRST_ID, _LAST_ID) for _ in range(length))


def long_tailed(
    rng: random.Random, count: int | None, median: int = 40, sigma: float = 1.1, longest: int = 800
) -> Iterator[Job]:
    """Log-normal lengths, as those of conversations are: with these defaults half of the outputs have under 40 tokens,
    one of a hundred more than 500. Prompts likewise, around 32 and up to 400. Without end if `count` is None.
    """

    def length(around: float, most: int) -> int:
        return min(most, max(2, round(rng.lognormvariate(math.log(around), sigma))))

    for _ in itertools.count() if count is None else range(count):
        yield Job(some_prompt(rng, length(32, 400)), length(median, longest))


@dataclass(slots=True)
class Outcome:
    """The course of one request. Times are seconds on a monotonic clock; `arrivals` has one entry per token."""

    sent: float
    arrivals: list[float] = field(default_factory=list)
    ended: float = 0.0
    code: str = ""
    retry_seconds: float | None = None

    @property
    def ttft(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        """Seconds between tokens."""
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]

    @property
    def tpot(self) -> float:
        """Mean seconds per token after the first; needs two."""
        return (self.arrivals[-1] - self.arrivals[0]) / (len(self.arrivals) - 1)


class Load:
    """A client of one server."""

    def __init__(self, address: str) -> None:
        """To be made on the event loop that uses it."""
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def ask(self, job: Job, outcome: Outcome | None = None) -> Outcome:
        """Send a request and read its stream."""
        outcome = outcome or Outcome(time.monotonic())
        try:
            async for message in self._stub.GenerateStream(job.request(), timeout=_DEADLINE):
                now = time.monotonic()
                outcome.arrivals += [now] * len(message.token_ids)
            outcome.code = "OK"
        except grpc.aio.AioRpcError as error:
            outcome.code, outcome.retry_seconds = error.code().name, retry_of(error)
        finally:
            outcome.ended = time.monotonic()
        return outcome

    async def closed_loop(self, jobs: Iterable[Job], clients: int, seconds: float | None = None) -> list[Outcome]:
        """So many clients, each with one request under way, until all jobs are done or time is up.

        What is cut off then is there, too, with the tokens that came.
        """
        left = iter(jobs)
        outcomes: list[Outcome] = []

        async def client() -> None:
            for job in left:
                outcomes.append(Outcome(time.monotonic(), code="CUT"))
                await self.ask(job, outcomes[-1])

        clients_done = asyncio.gather(*(client() for _ in range(clients)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(clients_done, seconds)
        return outcomes

    async def waves(self, jobs: Iterable[Job], size: int, seconds: float | None = None) -> list[Outcome]:
        """As `closed_loop`, but the next `size` jobs are sent when all of the last have ended: static batching."""
        left = iter(jobs)
        outcomes: list[Outcome] = []

        async def one_after_the_other() -> None:
            while wave := list(itertools.islice(left, size)):
                sent = [Outcome(time.monotonic(), code="CUT") for _ in wave]
                outcomes.extend(sent)
                await asyncio.gather(*map(self.ask, wave, sent))

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(one_after_the_other(), seconds)
        return outcomes

    async def poisson(self, jobs: Iterable[Job], rate: float, seconds: float, rng: random.Random) -> list[Outcome]:
        """Requests at random moments, `rate` a second, whatever becomes of them."""
        begin, at = time.monotonic(), 0.0
        tasks = []
        for job in jobs:
            at += rng.expovariate(rate)
            if at > seconds:
                break
            await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
            tasks.append(asyncio.create_task(self.ask(job)))
        return list(await asyncio.gather(*tasks))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of all lie; nan if there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def tokens_per_second(outcomes: Sequence[Outcome], skip: float = 0.0) -> float:
    """Tokens that came between the first request and the last answer; the first `skip` seconds do not count."""
    begin, end = min(o.sent for o in outcomes) + skip, max(o.ended for o in outcomes)
    return sum(at >= begin for o in outcomes for at in o.arrivals) / (end - begin)


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """Cells of a table: requests done, tokens/s, TTFT p50/p99, TPOT p50/p99, ITL p50/p99; milliseconds."""
    done = [o for o in outcomes if o.code == "OK" and o.arrivals]
    ttft, gaps = [o.ttft for o in done], [gap for o in done for gap in o.gaps]
    tpot = [o.tpot for o in done if len(o.arrivals) > 1]
    cells = [str(len(done)), f"{tokens_per_second(outcomes):.0f}"]
    return cells + [f"{1000 * percentile(v, 50):.1f} / {1000 * percentile(v, 99):.1f}" for v in (ttft, tpot, gaps)]


SUMMARY = ("requests", "tokens/s", "TTFT p50/p99 ms", "TPOT p50/p99 ms", "ITL p50/p99 ms")


def median(values: Iterable[float]) -> float:
    """The middle one."""
    return statistics.median(values)
