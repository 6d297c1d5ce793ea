"""The engine's counts of its steps: when each sequence started, how fast requests end, the rows of each expert."""

import collections

from cluster.engine.events import Event, Finish, FinishReason, Sampled, Started
from cluster.observe.view import EngineCounters
from cluster.policy.scheduling.sequence import NextToken, Sequence, added
from model.batch import StepPlan, StepResult


class Statistics:
    """Written by the engine's thread, read by any. Times are seconds on the engine's clock."""

    def __init__(self) -> None:
        self.counters = EngineCounters()  # but for what the scheduler holds
        self.retries = 0
        self._started: dict[str, tuple[float, int]] = {}  # when a sequence first ran, and `retries` then
        self._ended: collections.deque[float] = collections.deque(maxlen=64)  # in busy time
        self._idle = 0.0  # seconds in which nothing ran: busy time is the clock less these
        self._idle_since: float | None = None

    def start(self, sequences: list[Sequence], now: float) -> None:
        """These run from now on, unless they did before."""
        if self._idle_since is not None:
            self._idle += now - self._idle_since
            self._idle_since = None
        for sequence in sequences:
            self._started.setdefault(sequence.id, (now, self.retries))

    def forget(self, sequence_id: str, now: float) -> None:
        if self._started.pop(sequence_id, None) and not self._started:
            self._idle_since = now

    def count(self, plan: StepPlan, result: StepResult) -> None:
        self.retries += result.retries
        decodes = sum(chunk.length == 1 and chunk.sample for chunk in plan.chunks)
        phase = "decode" if decodes == len(plan.chunks) else "mixed" if decodes else "prefill"
        self.counters.step_seconds[phase].observe(result.seconds)
        self.counters.dispatch_seconds.observe(result.dispatch_seconds)
        self.counters.expert_rows = added(self.counters.expert_rows, result.expert_tokens)

    def events(self, tokens: list[NextToken], now: float) -> list[Event]:
        events: list[Event] = []
        for token in tokens:
            sequence, finish = token.sequence, None
            if sequence.output_length == 1:
                started, retries = self._started[sequence.id]
                scores = tuple(sequence.scores)
                events.append(Started(sequence.id, started, sequence.cached or 0, scores, retries))
            if token.stopped:
                finish = Finish(FinishReason.STOP, stop_token_id=token.token.token_id)
            elif token.exhausted:
                finish = Finish(FinishReason.LENGTH)
            if finish:
                self.forget(sequence.id, now)
                self._ended.append(now - self._idle)
            events.append(Sampled(sequence.id, token.token, finish, token.routing, self.retries))
        return events

    def retry_seconds(self, now: float, waiting: int) -> float:
        """Estimated time until an eighth of the queue has been admitted at the recent rate, between 1 and 60 s. At
        least one place is free by then; a full queue sends away for longer, so that the refused clients do not come
        back all at once. Time in which nothing ran says nothing about the rate.
        """
        if len(self._ended) < 2:
            return 1.0
        busy = (now if self._idle_since is None else self._idle_since) - self._idle - self._ended[0]
        return min(60.0, max(1.0, max(1.0, waiting / 8) * busy / len(self._ended)))
