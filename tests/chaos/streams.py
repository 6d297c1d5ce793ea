"""Streams that never rest, each answer compared with the one that was given when nothing happened."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import grpc

from protos.eightwinds.v1 import inference_pb2 as pb
from protos.eightwinds.v1 import inference_pb2_grpc

_PROMPTS = (
    "Once upon a time",
    "My favourite condiment is",
    "What is 37 + 48?",
    "The weather in",
    "A long road",
    "def ",
    " ".join(f"{a} + {b} = {a + b}." for a in range(4, 14) for b in range(3, 9)),  # some prefill steps long
)
_SCHEMA = '{"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 4, "maxItems": 8}'
DEADLINE = 180.0

Answer = tuple[tuple[int, ...], ...]  # ids by output


def some_requests(seed: int, count: int, tokens: int = 96) -> list[pb.GenerateRequest]:
    """Greedy, seeded, n > 1 and structured ones in turn."""
    rng, found = random.Random(seed), []
    for number in range(count):
        request = pb.GenerateRequest(
            prompt=pb.Prompt(text=rng.choice(_PROMPTS)),
            sampling=pb.Sampling(temperature=0.0),
            stopping=pb.Stopping(max_tokens=rng.randint(tokens // 2, tokens), ignore_eos=True),
            output=pb.OutputOptions(token_ids=True),
        )
        match number % 4:
            case 1:
                request.sampling.CopyFrom(pb.Sampling(temperature=0.9, seed=rng.randrange(2**40)))
            case 2:
                request.sampling.CopyFrom(pb.Sampling(temperature=1.1, seed=rng.randrange(2**40), top_p=0.9))
                request.n = 2
            case 3:
                request.sampling.CopyFrom(pb.Sampling(temperature=0.8, seed=rng.randrange(2**40)))
                request.constraint.json_schema = _SCHEMA
                request.stopping.ignore_eos = False
        found.append(request)
    return found


@dataclass(slots=True)
class Tally:
    """What the streams met. `arrivals` are the times of each answer's messages, on the monotonic clock, `tpots` the
    seconds per token after the first of each that came to its end; `refused` were never taken in, and asked again.
    """

    done: int = 0
    different: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    arrivals: list[list[float]] = field(default_factory=list)
    tpots: list[float] = field(default_factory=list)

    def note(self, arrivals: list[float], answer: Answer, expected: Answer) -> None:
        """A request was answered."""
        self.done += 1
        self.different += answer != expected
        self.arrivals.append(arrivals)
        if (most := max(map(len, answer))) > 1:
            self.tpots.append((arrivals[-1] - arrivals[0]) / (most - 1))

    def gaps(self, windows: Sequence[tuple[float, float]] | None = None) -> list[float]:
        """Seconds between messages of a stream; those that overlap one of the windows, if there are any."""
        pairs = [(a, b) for times in self.arrivals for a, b in itertools.pairwise(times)]
        return [b - a for a, b in pairs if windows is None or any(s <= b and a <= e for s, e in windows)]


def merged(tallies: Iterable[Tally]) -> Tally:
    """All of them in one."""
    total = Tally()
    for tally in tallies:
        total.done += tally.done
        total.different += tally.different
        total.refused += tally.refused
        total.failed += tally.failed
        total.arrivals += tally.arrivals
        total.tpots += tally.tpots
    return total


class Streams:
    """`at_once` streams on a thread of their own, from `start` to `stop`."""

    def __init__(
        self,
        address: str,
        requests: Sequence[pb.GenerateRequest],
        at_once: int = 16,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """`credentials` hold TLS and a token, for a server that wants them."""
        self.address, self.requests, self.at_once = address, requests, at_once
        self._credentials = credentials
        self.expected: list[Answer] = []
        self._stopping = threading.Event()
        self.tally = Tally()
        self._thread: threading.Thread | None = None

    def _channel(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.address)
        return grpc.aio.secure_channel(self.address, self._credentials)

    def learn(self) -> None:
        """Ask each request by itself: these are the right answers."""

        async def all_of_them() -> None:
            async with self._channel() as channel:
                stub = inference_pb2_grpc.InferenceServiceStub(channel)
                for request in self.requests:
                    self.expected.append(await _ask(stub, request, []))

        asyncio.run(all_of_them())

    def start(self, tally: Tally | None = None) -> Tally:
        """Begin; the tally, a new one or this, fills while they run."""
        self.tally = tally or Tally()
        self._stopping.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(self.tally)), daemon=True)
        self._thread.start()
        return self.tally

    def finish(self) -> None:
        """Begin no more requests."""
        self._stopping.set()

    def stop(self) -> Tally:
        """Let what is under way end."""
        self.finish()
        assert self._thread is not None
        self._thread.join(DEADLINE + 10)
        assert not self._thread.is_alive(), "a stream hangs"
        return self.tally

    async def _run(self, tally: Tally) -> None:
        numbers = itertools.count()
        async with self._channel() as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)

            async def one_after_the_other() -> None:
                while not self._stopping.is_set():
                    number = next(numbers) % len(self.requests)
                    arrivals: list[float] = []
                    try:
                        answer = await _ask(stub, self.requests[number], arrivals)
                    except grpc.aio.AioRpcError as error:
                        tally.failed.append(f"{error.code().name}: {error.details()}")
                        continue
                    tally.note(arrivals, answer, self.expected[number])

            await asyncio.gather(*(one_after_the_other() for _ in range(self.at_once)))


async def _ask(
    stub: inference_pb2_grpc.InferenceServiceAsyncStub, request: pb.GenerateRequest, arrivals: list[float]
) -> Answer:
    ids: list[list[int]] = [[] for _ in range(request.n or 1)]
    async for message in stub.GenerateStream(request, timeout=DEADLINE):
        arrivals.append(time.monotonic())
        ids[message.index].extend(message.token_ids)
    return tuple(map(tuple, ids))
