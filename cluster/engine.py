"""The engine: a thread that turns requests into steps of the head, and results into token events.

`plan -> head.step -> commit`, until nothing is left to run; then it sleeps. It knows neither Ray nor gRPC nor torch:
the head is a `HeadHandle`, requests come in and events go out as plain data.
"""

import collections
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from actors.messages import HeadHandle, HeadLost, HeadTaken
from cluster.policy.scheduler import Drawn, Limits, Scheduler
from cluster.policy.sequence import Sequence
from cluster.request import Event, FailureEvent, Finish, FinishReason, SequenceRequest, Sink, TokenEvent
from model.batch import HeadInfo, StepFailure, StepPlan, StepResult

log = logging.getLogger("eightwinds.engine")

_POLL_SECONDS = 1.0
_RETRY_SECONDS = 0.5


class QueueFull(Exception):
    """The bounded queue is full; try again after `retry_seconds`."""

    def __init__(self, retry_seconds: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_seconds:.1f} s")
        self.retry_seconds = retry_seconds


class EngineStopped(Exception):
    """The engine no longer takes requests."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Bounds of the engine; see cluster/config.py for their meaning. `head_grace` is in seconds."""

    max_running: int
    max_tokens_per_step: int
    max_queued: int
    window: int | None
    head_grace: float = 60.0


class Engine:
    """Owns the scheduler. `submit` and `abort` may be called from any thread."""

    def __init__(
        self, head: HeadHandle, config: EngineConfig, sink: Sink, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Takes the head over (`begin`); `sink` gets each step's events on the engine's thread."""
        self._head, self._config, self._sink, self._clock = head, config, sink, clock
        self._epoch = time.time_ns()  # a later engine, or a later head of ours, always counts higher
        self._info: HeadInfo = head.begin(self._epoch)
        info = self._info
        self.limits = Limits(
            config.max_running, config.max_tokens_per_step, info.page_count, info.page_size, config.window
        )
        self._scheduler = Scheduler(self.limits)
        self._wake = threading.Condition()
        self._new: collections.deque[SequenceRequest] = collections.deque()
        self._gone: collections.deque[str] = collections.deque()
        self._started: dict[str, tuple[float, int]] = {}  # when, and `retries` then
        self._ended: collections.deque[float] = collections.deque(maxlen=64)
        self._stopping = False
        self.steps = self.retries = 0
        self.expert_tokens: list[list[int]] = []
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ---- callers' side ----

    def submit(self, requests: list[SequenceRequest]) -> None:
        """Queue the outputs of one request, all or none; raises QueueFull or EngineStopped."""
        with self._wake:
            if self._stopping:
                raise EngineStopped
            if self.waiting_count + len(requests) > self._config.max_queued + self._free_slots():
                raise QueueFull(self._retry_seconds())
            self._new.extend(requests)
            self._wake.notify()

    def abort(self, key: str) -> None:
        """Drop a sequence and free its slot and pages before the next step; unknown keys are ignored."""
        with self._wake:
            self._gone.append(key)
            self._wake.notify()

    @property
    def running_count(self) -> int:
        """Sequences in slots."""
        return self._scheduler.running_count

    @property
    def waiting_count(self) -> int:
        """Sequences waiting for a slot."""
        return self._scheduler.waiting_count + len(self._new)

    @property
    def alive(self) -> bool:
        """Whether requests can be served."""
        return self._thread.is_alive() and not self._stopping

    def check(self) -> None:
        """Raise AssertionError unless every slot and KV page is accounted for; the engine must be idle."""
        with self._wake:
            self._scheduler.check()

    @property
    def free_pages(self) -> int:
        """KV pages that nobody holds."""
        return self._scheduler.pool.free_count

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread; what is still running gets a FailureEvent."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)

    def _free_slots(self) -> int:
        return max(0, self._config.max_running - self._scheduler.running_count)

    def _retry_seconds(self) -> float:
        """Time in which one request ends at the pace of late, between 1 and 60 s."""
        if len(self._ended) < 2:
            return 1.0
        pace = (self._clock() - self._ended[0]) / len(self._ended)
        return min(60.0, max(1.0, pace))

    # ---- the thread ----

    def _run(self) -> None:
        kind = "stopped"
        try:
            while self._wait_for_work():
                plan = self._scheduler.plan(self._epoch, self._info.incarnation)
                if plan.chunks:
                    self._mark_started(plan)
                    self._step(plan)
        except HeadTaken as error:
            log.error("this engine ends: %s", error)
        except HeadLost as error:
            log.error("the head did not come back: %s", error)
            kind = "unavailable"
        except Exception:  # a bug of ours: whoever waits must hear of it, and the operator read of it
            log.exception("the engine failed")
            kind = "internal"
        finally:
            with self._wake:
                self._stopping = True
                keys = self._scheduler.keys() + [request.key for request in self._new]
                self._new.clear()
            self._sink([FailureEvent(key, kind) for key in keys])

    def _wait_for_work(self) -> bool:
        """Take in what was submitted and aborted; sleep while there is nothing to run. False: stop."""
        with self._wake:
            while not (self._stopping or self._new or self._gone or self._scheduler.has_work):
                self._scheduler.check()
                self._wake.wait()
            if self._stopping:
                return False
            while self._new:
                self._scheduler.add(_sequence(self._new.popleft()))
            while self._gone:
                key = self._gone.popleft()
                self._scheduler.abort(key)
                self._started.pop(key, None)
            return True

    def _mark_started(self, plan: StepPlan) -> None:
        if plan.admit:
            now = self._clock()
            for key in self._scheduler.running_keys():
                self._started.setdefault(key, (now, self.retries))

    def _step(self, plan: StepPlan) -> None:
        try:
            self._head.submit(plan)
            result = None
            while result is None and not self._stopping:
                result = self._head.poll(_POLL_SECONDS)
        except HeadLost as error:
            log.warning("the head is lost (%s); its sequences will be run again", error)
            self._begin_again()
            return
        if isinstance(result, StepResult):
            self._commit(plan, result)
        elif isinstance(result, StepFailure):
            self._fail(result)

    def _commit(self, plan: StepPlan, result: StepResult) -> None:
        with self._wake:
            drawn = self._scheduler.commit(plan, result)
        self.steps += 1
        self.retries += result.retries
        events: list[Event] = [self._event(d) for d in drawn]
        self._count(result.expert_tokens)
        if events:
            self._sink(events)

    def _event(self, drawn: Drawn) -> TokenEvent:
        token, finish = drawn.token, None
        if drawn.stopped:
            finish = Finish(FinishReason.STOP, stop_token_id=token.token_id)
        elif drawn.exhausted:
            finish = Finish(FinishReason.LENGTH)
        started, before = self._started[drawn.key]
        if finish:
            self._started.pop(drawn.key, None)
            self._ended.append(self._clock())
        return TokenEvent(
            drawn.key,
            token.token_id,
            finish,
            token.logprob,
            token.top,
            drawn.routing,
            self.retries,
            before,
            started,
        )

    def _count(self, expert_tokens: tuple[tuple[int, ...], ...]) -> None:
        if not self.expert_tokens:
            self.expert_tokens = [[0] * len(row) for row in expert_tokens]
        for total, row in zip(self.expert_tokens, expert_tokens, strict=True):
            for expert, count in enumerate(row):
                total[expert] += count

    def _fail(self, failure: StepFailure) -> None:
        """A step that was refused or failed: `stale` means a new head, which only needs the sequences again."""
        log.warning("step %d failed (%s): %s", failure.step, failure.kind, failure.detail)
        if failure.kind != "stale":
            keys = self._scheduler.running_keys()
            for key in keys:
                self._scheduler.abort(key)
                self._started.pop(key, None)
            self._sink([FailureEvent(key, failure.kind) for key in keys])
        self._begin_again()

    def _begin_again(self) -> None:
        """Adopt the (restarted) head anew and queue every sequence for another prefill."""
        with self._wake:
            self._scheduler.requeue_all()
        end = self._clock() + self._config.head_grace
        while not self._stopping:
            self._epoch += 1
            try:
                self._info = self._head.begin(self._epoch)
                return
            except HeadLost as error:
                if self._clock() >= end:
                    raise
                log.warning("the head does not answer yet: %s", error)
                time.sleep(_RETRY_SECONDS)


def _sequence(request: SequenceRequest) -> Sequence:
    return Sequence(
        request.key,
        list(request.prompt_ids),
        len(request.prompt_ids),
        request.sampling,
        request.max_tokens,
        request.stop_ids,
        request.priority,
        request.trace,
    )
