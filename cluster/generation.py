"""Requests between the gateway's event loop and the engine's thread: one `Generation` per request.

Text is decoded here, off the engine's thread, which hands over each step's events in one call.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

from cluster.engine import Engine
from cluster.output import OutputText, Piece, StopRules
from cluster.request import Event, FailureEvent, SequenceRequest, TokenEvent
from model.batch import SamplingParams
from model.detokenizer import Detokenizer
from model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A validated request. `sampling.seed` is used for all `n` outputs, told apart by their index."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int]
    rules: StopRules
    n: int = 1
    priority: int = 0
    special_tokens: bool = False
    trace: bool = False


class GenerationFailed(Exception):
    """The request could not be finished; `kind` as in FailureEvent."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(slots=True)
class Progress:
    """What a request has used so far; times are seconds since it was accepted, on a monotonic clock."""

    completion_tokens: int = 0
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0
    retries: int = 0
    routing: list[list[int]] | None = None


class Generation:
    """One request under way. Iterate it for pieces; `close` drops what is unfinished."""

    def __init__(self, request: GenerationRequest, engine: Engine, tokenizer: Tokenizer) -> None:
        self.request, self.progress = request, Progress()
        self._engine = engine
        self._accepted, self._retries_before = time.monotonic(), 0
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._open = {f"{secrets.token_hex(8)}/{i}": i for i in range(request.n)}
        self._texts = [
            OutputText(Detokenizer(tokenizer, special_tokens=request.special_tokens), request.rules)
            for _ in range(request.n)
        ]

    def sequences(self) -> list[SequenceRequest]:
        """What the engine is asked to run, one per output."""
        r = self.request
        return [
            SequenceRequest(
                key,
                r.prompt_ids,
                replace(r.sampling, output_index=index),
                r.max_tokens,
                r.stop_ids,
                r.priority,
                r.trace,
            )
            for key, index in self._open.items()
        ]

    def deliver(self, event: Event) -> None:
        """Hand over an event; called on the event loop."""
        self._events.put_nowait(event)

    async def pieces(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        """(output index, piece) as they come; what has gathered meanwhile comes together. Raises GenerationFailed."""
        while self._open:
            events = [await self._events.get()]
            while not self._events.empty():
                events.append(self._events.get_nowait())
            pieces = [piece for event in events if (piece := self._take(event)) is not None]
            if pieces:
                yield pieces

    def close(self) -> None:
        """Abort what is unfinished."""
        for key in self._open:
            self._engine.abort(key)
        self._open.clear()

    def _take(self, event: Event) -> tuple[int, Piece] | None:
        index = self._open.get(event.key)
        if index is None:  # ended by a stop string; the engine had drawn further
            return None
        if isinstance(event, FailureEvent):
            raise GenerationFailed(event.kind)
        self._count(event)
        piece = self._texts[index].push(event)
        if piece.finish is not None:
            del self._open[event.key]
            if event.finish is None:
                self._engine.abort(event.key)
        return index, piece

    def _count(self, event: TokenEvent) -> None:
        p, now = self.progress, time.monotonic()
        if p.completion_tokens == 0:
            p.queue_seconds = max(0.0, event.started - self._accepted)
            self._retries_before = event.retries_before
            p.first_token_seconds = now - self._accepted
        p.total_seconds = now - self._accepted
        p.completion_tokens += 1
        p.retries = event.retries - self._retries_before
        if event.routing:
            if p.routing is None:
                p.routing = [[0] * len(row) for row in event.routing]
            for total, row in zip(p.routing, event.routing, strict=True):
                for expert, count in enumerate(row):
                    total[expert] += count

    @property
    def keys(self) -> list[str]:
        """Sequences that are not finished."""
        return list(self._open)


class Generations:
    """All requests under way; the engine's sink."""

    def __init__(self, tokenizer: Tokenizer, loop: asyncio.AbstractEventLoop) -> None:
        self._tokenizer, self._loop = tokenizer, loop
        self._by_key: dict[str, Generation] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def sink(self, events: list[Event]) -> None:
        """Take a step's events; called on the engine's thread."""
        self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            generation = self._by_key.get(event.key)
            if generation is not None:
                generation.deliver(event)

    def start(self, request: GenerationRequest, engine: Engine) -> Generation:
        """Queue a request; raises QueueFull or EngineStopped."""
        generation = Generation(request, engine, self._tokenizer)
        keys = generation.keys
        for key in keys:
            self._by_key[key] = generation
        try:
            engine.submit(generation.sequences())
        except Exception:  # whatever it was, nothing of the request may stay behind
            self._forget(keys)
            raise
        self._idle.clear()
        return generation

    @contextlib.contextmanager
    def running(self, request: GenerationRequest, engine: Engine) -> Iterator[Generation]:
        """A context for one request: started on entry, dropped and forgotten on exit, however that comes."""
        generation = self.start(request, engine)
        keys = generation.keys
        try:
            yield generation
        finally:
            generation.close()
            self._forget(keys)

    def _forget(self, keys: list[str]) -> None:
        for key in keys:
            self._by_key.pop(key, None)
        if not self._by_key:
            self._idle.set()

    async def drained(self, grace: float) -> bool:
        """Wait until no request is under way; False if one still is after `grace` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace)
        return self._idle.is_set()

    def cut_off(self) -> None:
        """End every request that is under way with a failure."""
        for key, generation in self._by_key.items():
            generation.deliver(FailureEvent(key, "stopped"))
