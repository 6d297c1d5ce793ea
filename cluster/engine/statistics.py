"""What the engine notes down of its steps: when each sequence started, how fast requests end, what experts ran."""

import collections
import copy

from cluster.engine.request import Finish, FinishReason, TokenEvent
from cluster.observe.histogram import Histogram
from cluster.observe.view import EngineCounters
from cluster.policy.scheduling.sequence import Drawn, Sequence
from model.batch import StepPlan, StepResult


class Accounts:
    """Written by the engine's thread; any may ask for `retry_seconds` and `counters`. Times are seconds on the engine's
    clock.
    """

    def __init__(self) -> None:
        self.faults: collections.Counter[str] = collections.Counter({"numeric": 0, "constraint": 0})
        self.steps = self.retries = self.head_restarts = 0
        self.step_seconds = {phase: Histogram() for phase in ("prefill", "decode", "mixed")}
        self.dispatch_seconds = Histogram()
        self.expert_tokens: list[list[int]] = []  # [layer][expert], since the start
        self._started: dict[str, tuple[float, int]] = {}  # when a sequence first ran, and `retries` then
        self._ended: collections.deque[float] = collections.deque(maxlen=64)  # in busy time
        self._idle = 0.0  # seconds in which nothing ran: busy time is the clock less these
        self._idle_since: float | None = None

    def start(self, sequences: list[Sequence], now: float) -> None:
        """These run from now on, unless they did before."""
        if self._idle_since is not None:
            self._idle, self._idle_since = self._idle + now - self._idle_since, None
        for sequence in sequences:
            self._started.setdefault(sequence.key, (now, self.retries))

    def forget(self, key: str, now: float) -> None:
        """A sequence is gone."""
        if self._started.pop(key, None) and not self._started:
            self._idle_since = now

    def count(self, plan: StepPlan, result: StepResult) -> None:
        """A step was carried out."""
        self.steps += 1
        decodes = sum(chunk.length == 1 and chunk.sample for chunk in plan.chunks)
        phase = "decode" if decodes == len(plan.chunks) else "mixed" if decodes else "prefill"
        self.step_seconds[phase].observe(result.seconds)
        self.dispatch_seconds.observe(result.dispatch_seconds)
        self.retries += result.retries
        if not self.expert_tokens:
            self.expert_tokens = [[0] * len(row) for row in result.expert_tokens]
        for total, row in zip(self.expert_tokens, result.expert_tokens, strict=True):
            for expert, count in enumerate(row):
                total[expert] += count

    def event(self, drawn: Drawn, now: float) -> TokenEvent:
        """What its client is told of a token."""
        sequence, token, finish = drawn.sequence, drawn.token, None
        started, retries_before = self._started[sequence.key]
        if drawn.stopped or drawn.exhausted:
            stopped = Finish(FinishReason.STOP, stop_token_id=token.token_id)
            finish = stopped if drawn.stopped else Finish(FinishReason.LENGTH)
            self.forget(sequence.key, now)
            self._ended.append(now - self._idle)
        first = sequence.output_length == 1
        return TokenEvent(
            sequence.key,
            token.token_id,
            finish,
            token.logprob,
            token.top,
            drawn.routing,
            self.retries,
            retries_before,
            started,
            sequence.cached or 0,
            tuple(sequence.scores) if first else (),
        )

    def counters(self, running: int, waiting: int, free_pages: int, page_count: int) -> EngineCounters:
        """What is counted here, as it is now, beside what the scheduler holds."""
        return EngineCounters(
            running,
            waiting,
            free_pages,
            page_count,
            self.head_restarts,
            tuple(map(tuple, self.expert_tokens)),
            self.faults.copy(),
            copy.deepcopy(self.step_seconds),
            copy.deepcopy(self.dispatch_seconds),
        )

    def retry_seconds(self, now: float, waiting: int) -> float:
        """Time in which an eighth of those that wait come in at the pace of late, between 1 and 60 s.

        At least one place is free by then; a full queue sends away for longer, so that those it refuses do not come
        back all at once. Time in which nothing ran says nothing about the pace.
        """
        if len(self._ended) < 2:
            return 1.0
        busy = (now if self._idle_since is None else self._idle_since) - self._idle - self._ended[0]
        return min(60.0, max(1.0, max(1.0, waiting / 8) * busy / len(self._ended)))
