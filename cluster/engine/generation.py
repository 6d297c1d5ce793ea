"""Requests between the gateway's event loop and the engine's thread, which hands over each step's events in one call.
Text is decoded here, off the engine's thread.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cluster.engine.engine import Engine
from cluster.engine.events import Event, Failed, Sampled, Started
from cluster.engine.text import OutputText, Piece, StopRules
from cluster.observe.view import RequestStats
from cluster.policy.scheduling.sequence import Routing, SequenceRequest, added
from model.batch import Alternatives
from model.chat.calls import CallReader, CallSyntax
from model.text.detokenizer import Detokenizer
from model.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """`sequence` is what each of the `n` outputs runs: they share its seed, and are told apart by their index. `calls`
    is how they call tools, None where they have none.
    """

    request_id: str
    sequence: SequenceRequest
    rules: StopRules = field(default_factory=StopRules)
    n: int = 1
    special_tokens: bool = False
    calls: CallSyntax | None = None


@dataclass(eq=False)
class GenerationFailed(Exception):
    """The request could not be finished; `kind` as in Failed."""

    kind: str


@dataclass(slots=True)
class Progress:
    """A request's progress so far; times are seconds since it was accepted. Cached tokens and scores of the prompt
    are those of the first output, which runs it.
    """

    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    prompt_scores: tuple[tuple[float, Alternatives], ...] = ()
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0
    retries: int = 0
    routing: Routing = ()


class Generation:
    """One request under way. A slow reader delays nobody: its tokens are buffered here, and with more than
    `max_buffered` of them the request fails (`slow`).
    """

    def __init__(
        self, request: GenerationRequest, engine: Engine, tokenizer: Tokenizer, max_buffered: int, stats: RequestStats
    ) -> None:
        self.request, self.progress = request, Progress()
        self._engine, self._max_buffered, self._stats = engine, max_buffered, stats
        self._last = [0.0] * request.n  # when each output's last token came
        self._accepted = engine.clock()
        self._retries_before: int | None = None  # None until an output has started
        self._events: asyncio.Queue[Sampled | Failed] = asyncio.Queue()
        self._too_slow = False
        self.ids = [f"{secrets.token_hex(8)}/{i}" for i in range(request.n)]
        self._open = {sequence_id: i for i, sequence_id in enumerate(self.ids)}
        marks = request.calls.marks(tokenizer) if request.calls else None
        self._texts = [
            OutputText(
                Detokenizer(tokenizer, special_tokens=request.special_tokens, marks=marks),
                request.rules,
                CallReader(request.calls, sequence_id) if request.calls else None,
            )
            for sequence_id in self.ids
        ]

    def sequences(self) -> list[SequenceRequest]:
        shared = self.request.sequence
        return [
            replace(
                shared,
                sequence_id=sequence_id,
                family=self.ids[0] if self.request.n > 1 else "",
                sampling=replace(shared.sampling, output_index=index),
                prompt_logprobs=shared.prompt_logprobs if index == 0 else -1,
            )
            for index, sequence_id in enumerate(self.ids)
        ]

    def deliver(self, event: Event) -> None:
        """Called on the event loop."""
        if self._too_slow:
            return
        if isinstance(event, Started):
            self._note_start(event)
            return
        self._events.put_nowait(event)
        if self._events.qsize() > self._max_buffered:
            self._too_slow = True
            self._events = asyncio.Queue()  # safe to replace: a reader blocks only on an empty queue
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
        self._abort()
        self._open.clear()

    def _abort(self) -> None:
        for sequence_id in self._open:
            self._engine.abort(sequence_id)

    def _take(self, event: Sampled | Failed) -> tuple[int, Piece] | None:
        index = self._open.get(event.sequence_id)
        if index is None:  # ended by a stop string; the engine had gone further
            return None
        if isinstance(event, Failed):
            raise GenerationFailed(event.kind)
        self._count(index, event)
        piece = self._texts[index].push(event)
        if piece.finish is not None:
            self._stats.finished[piece.finish.reason.value] += 1
            del self._open[event.sequence_id]
            if not self._open:
                self._stats.total.observe(self.progress.total_seconds)
            if event.finish is None:
                self._engine.abort(event.sequence_id)
        return index, piece

    def _note_start(self, event: Started) -> None:
        p = self.progress
        if self._open.get(event.sequence_id) == 0:
            p.cached_prompt_tokens = event.cached_tokens
            p.prompt_scores = event.prompt_scores
        if self._retries_before is None:
            self._retries_before = event.retries
            p.queue_seconds = event.at - self._accepted
            self._stats.queue.observe(p.queue_seconds)
            self._stats.prompt_tokens += len(self.request.sequence.prompt_ids)

    def _count(self, index: int, event: Sampled) -> None:
        p, s, now = self.progress, self._stats, self._engine.clock()
        if self._last[index]:
            s.gap.observe(now - self._last[index])
        self._last[index] = now
        s.generation_tokens += 1
        if p.completion_tokens == 0:
            p.first_token_seconds = now - self._accepted
            s.first_token.observe(p.first_token_seconds)
        p.total_seconds = now - self._accepted
        p.completion_tokens += 1
        assert self._retries_before is not None, "a token of an output that has not started"
        p.retries = event.retries - self._retries_before
        if event.routing:
            p.routing = added(p.routing, event.routing)

    @property
    def open_ids(self) -> list[str]:
        return list(self._open)


class Generations:
    """All requests under way; the engine's sink. One request may leave `max_buffered` tokens unread."""

    def __init__(self, tokenizer: Tokenizer, loop: asyncio.AbstractEventLoop, max_buffered: int) -> None:
        self._tokenizer, self._loop, self._max_buffered = tokenizer, loop, max_buffered
        self.stats = RequestStats()
        self._by_id: dict[str, Generation] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def sink(self, events: list[Event]) -> None:
        """Called on the engine's thread."""
        self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            if generation := self._by_id.get(event.sequence_id):
                generation.deliver(event)

    def start(self, requests: Sequence[GenerationRequest], engine: Engine) -> list[Generation]:
        """Queue requests of one client, all or none; raises QueueFull or EngineStopped. Their events come later, on
        this thread's loop.
        """
        started = [Generation(one, engine, self._tokenizer, self._max_buffered, self.stats) for one in requests]
        engine.submit([sequence for generation in started for sequence in generation.sequences()])
        for generation in started:
            self._by_id |= dict.fromkeys(generation.ids, generation)
        self._idle.clear()
        return started

    @contextlib.contextmanager
    def running(self, request: GenerationRequest, engine: Engine) -> Iterator[Generation]:
        """As `all_running`, of one request."""
        with self.all_running([request], engine) as (generation,):
            yield generation

    @contextlib.contextmanager
    def all_running(self, requests: Sequence[GenerationRequest], engine: Engine) -> Iterator[list[Generation]]:
        """A context for requests: started on entry, dropped and forgotten on exit, however that comes."""
        started = self.start(requests, engine)
        try:
            yield started
        finally:
            for generation in started:
                generation.close()
                self._forget(generation)

    def _forget(self, generation: Generation) -> None:
        for sequence_id in generation.ids:
            self._by_id.pop(sequence_id, None)
        if not self._by_id:
            self._idle.set()

    @property
    def outputs(self) -> int:
        """How many outputs are under way or queued, of all requests."""
        return len(self._by_id)

    async def drained(self, grace: float) -> bool:
        """Wait until no request is under way; False if one still is after `grace` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace)
        return self._idle.is_set()

    def cut_off(self) -> None:
        for sequence_id, generation in self._by_id.items():
            generation.deliver(Failed(sequence_id, "stopped"))

    def check(self, *under_way: Generation) -> None:
        """Raise AssertionError unless these requests are under way, and no others."""
        assert set(self._by_id.values()) == set(under_way), "a request is forgotten, or one that has ended is not"
        assert self._idle.is_set() == (not self._by_id), "idle, and something is under way, or the reverse"
