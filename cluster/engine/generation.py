"""Requests between the gateway's event loop and the engine's thread: one `Generation` per request.

Text is decoded here, off the engine's thread, which hands over each step's events in one call.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

from cluster.engine.engine import Engine
from cluster.engine.request import Event, FailureEvent, SequenceRequest, TokenEvent
from cluster.engine.text import OutputText, Piece, StopRules
from cluster.observe.requests import RequestStats
from model.batch import Alternatives, SamplingParams
from model.text.detokenizer import Detokenizer
from model.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A validated request. `sampling.seed` is used for all `n` outputs, told apart by their index. `client` is whom it
    counts for where clients share the server; `prompt_logprobs` and `tenant` as in `SequenceRequest`.
    """

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
    client: str = ""
    prompt_logprobs: int = -1
    tenant: str = ""


class GenerationFailed(Exception):
    """The request could not be finished; `kind` as in FailureEvent."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(slots=True)
class Progress:
    """What a request has used so far; times are seconds since it was accepted, on a monotonic clock. Cached tokens and
    scores of the prompt are those of the first output, which runs it.
    """

    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    prompt_scores: tuple[tuple[float, Alternatives], ...] = ()
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0
    retries: int = 0
    routing: list[list[int]] | None = None


class Generation:
    """One request under way. Iterate it for pieces; `close` drops what is unfinished.

    Who does not read holds nobody up: what is put out meanwhile waits here, and with more than `max_buffered` tokens
    the request fails (`slow`).
    """

    def __init__(
        self, request: GenerationRequest, engine: Engine, tokenizer: Tokenizer, max_buffered: int, stats: RequestStats
    ) -> None:
        self.request, self.progress = request, Progress()
        self._engine, self._max_buffered, self._stats = engine, max_buffered, stats
        self._last = [0.0] * request.n  # when each output's last token came
        self._accepted, self._retries_before = time.monotonic(), 0
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._too_slow = False
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
                r.client,
                family=next(iter(self._open)) if r.n > 1 else "",
                prompt_logprobs=r.prompt_logprobs if index == 0 else -1,
                tenant=r.tenant,
            )
            for key, index in self._open.items()
        ]

    def deliver(self, event: Event) -> None:
        """Hand over an event; called on the event loop."""
        if self._too_slow:
            return
        self._events.put_nowait(event)
        if self._events.qsize() > self._max_buffered:
            self._too_slow = True
            self._events = asyncio.Queue()  # nobody waits on one that has something in it
            self._abort()

    async def pieces(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        """(output index, piece) as they come; what has gathered meanwhile comes together. Raises GenerationFailed."""
        while self._open:
            if self._too_slow:
                raise GenerationFailed("slow")
            events = [await self._events.get()]
            while not self._events.empty():
                events.append(self._events.get_nowait())
            pieces = [piece for event in events if (piece := self._take(event)) is not None]
            if pieces:
                yield pieces

    def close(self) -> None:
        """Abort what is unfinished."""
        self._abort()
        self._open.clear()

    def _abort(self) -> None:
        for key in self._open:
            self._engine.abort(key)

    def _take(self, event: Event) -> tuple[int, Piece] | None:
        index = self._open.get(event.key)
        if index is None:  # ended by a stop string; the engine had drawn further
            return None
        if isinstance(event, FailureEvent):
            raise GenerationFailed(event.kind)
        self._count(index, event)
        piece = self._texts[index].push(event)
        if piece.finish is not None:
            self._stats.finished[piece.finish.reason.value] = self._stats.finished.get(piece.finish.reason.value, 0) + 1
            del self._open[event.key]
            if not self._open:
                self._stats.total.observe(self.progress.total_seconds)
            if event.finish is None:
                self._engine.abort(event.key)
        return index, piece

    def _count(self, index: int, event: TokenEvent) -> None:
        p, s, now = self.progress, self._stats, time.monotonic()
        if self._last[index]:
            s.gap.observe(now - self._last[index])
        self._last[index] = now
        s.generation_tokens += 1
        if index == 0:
            p.cached_prompt_tokens = event.cached_tokens
            p.prompt_scores = p.prompt_scores or event.prompt_scores
        if p.completion_tokens == 0:
            p.queue_seconds = max(0.0, event.started - self._accepted)
            self._retries_before = event.retries_before
            p.first_token_seconds = now - self._accepted
            s.queue.observe(p.queue_seconds)
            s.first_token.observe(p.first_token_seconds)
            s.prompt_tokens += len(self.request.prompt_ids)
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

    def __init__(self, tokenizer: Tokenizer, loop: asyncio.AbstractEventLoop, max_buffered: int = 4096) -> None:
        """`max_buffered`: tokens that one request may leave unread."""
        self._tokenizer, self._loop, self._max_buffered = tokenizer, loop, max_buffered
        self.stats = RequestStats()
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
        generation = Generation(request, engine, self._tokenizer, self._max_buffered, self.stats)
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
