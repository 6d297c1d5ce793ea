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

from actors.seams import HeadHandle, HeadLost, HeadTaken
from cluster.engine.request import FailureEvent, SequenceRequest, Sink
from cluster.engine.statistics import Accounts
from cluster.observe.events import EventLog, Kind
from cluster.observe.said_once import SaidOnce
from cluster.observe.view import EngineCounters
from cluster.policy.scheduling.admission import Backlog, QueueBounds, admits
from cluster.policy.scheduling.limits import Limits
from cluster.policy.scheduling.prefill_budget import Pace
from cluster.policy.scheduling.scheduler import Scheduler
from cluster.policy.scheduling.sequence import Sequence
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
    """Bounds of the engine; see cluster/settings/config.py for their meaning. `head_grace` is in seconds."""

    max_running: int
    max_tokens_per_step: int
    max_queued: int
    window: int | None
    head_grace: float = 60.0
    max_queued_tokens: int = 1 << 20
    prefill_slowdown: float = 1.5
    prefix_caching: bool = True
    static_batching: bool = False
    prefixes_by_tenant: bool = True

    def limits(self, info: HeadInfo) -> Limits:
        """What bounds a step on this head."""
        return Limits(
            self.max_running,
            self.max_tokens_per_step,
            info.page_count,
            info.page_size,
            self.window,
            self.prefix_caching,
            self.static_batching,
        )


class Engine:
    """Owns the scheduler. `submit` and `abort` may be called from any thread."""

    def __init__(
        self,
        head: HeadHandle,
        config: EngineConfig,
        sink: Sink,
        clock: Callable[[], float] = time.monotonic,
        events: EventLog | None = None,
    ) -> None:
        """Takes the head over (`begin`); `sink` gets each step's tokens, `events` the head's ends."""
        self._events = events or EventLog()
        self._head, self._config, self._sink, self._clock = head, config, sink, clock
        self._epoch = time.time_ns()  # most likely above what an earlier engine had, else the head tells what that was
        self._stopping, self._said = False, SaidOnce(log)
        info = self._take_over()
        assert info is not None, "nobody stops it yet"
        self._info: HeadInfo = info
        self._scheduler = Scheduler(config.limits(self._info))
        self._bounds = QueueBounds(config.max_queued, config.max_queued_tokens)
        self._pace = Pace(config.prefill_slowdown)
        self.accounts = Accounts()
        self._wake = threading.Condition()
        self._gone: collections.deque[str] = collections.deque()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ---- callers' side ----

    def submit(self, requests: list[SequenceRequest]) -> None:
        """Queue the outputs of one request, all or none; raises QueueFull or EngineStopped."""
        with self._wake:
            if self._stopping:
                raise EngineStopped
            queue, client = self._scheduler.queue, requests[0].client
            free_slots = self._config.max_running - self._scheduler.running_count
            backlog = Backlog(len(queue), queue.tokens, queue.waiting_of(client), free_slots)
            if not admits(self._bounds, backlog, len(requests[0].prompt_ids)):
                raise QueueFull(self.accounts.retry_seconds(self._clock(), len(queue)))
            for request in requests:
                self._scheduler.add(request.sequence(self._config.prefixes_by_tenant))
            self._wake.notify()

    def abort(self, key: str) -> None:
        """Drop a sequence and free its slot and pages before the next step; unknown keys are ignored."""
        with self._wake:
            self._gone.append(key)
            self._wake.notify()

    @property
    def limits(self) -> Limits:
        return self._scheduler.limits

    @property
    def running_count(self) -> int:
        return self._scheduler.running_count

    @property
    def waiting_count(self) -> int:
        """Sequences waiting for a slot."""
        with self._wake:
            return self._scheduler.waiting_count

    @property
    def alive(self) -> bool:
        """Whether requests can be served."""
        return self._thread.is_alive() and not self._stopping

    @property
    def adopted(self) -> bool:
        """Whether there is a head that serves this engine; if not, one is waited for."""
        return self._adopted

    def check(self) -> None:
        """Raise AssertionError unless every slot and KV page is accounted for; the engine must be idle."""
        with self._wake:
            self._scheduler.check()

    @property
    def free_pages(self) -> int:
        """KV pages that nobody holds."""
        return self._scheduler.pool.free_count

    def counters(self) -> EngineCounters:
        return self.accounts.counters(self.running_count, self.waiting_count, self.free_pages, self.limits.page_count)

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread; what is still running gets a FailureEvent."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)

    # ---- the thread ----

    def _run(self) -> None:
        kind = "stopped"
        try:
            while plan := self._next_plan():
                if plan.chunks:
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
                sequences = self._scheduler.sequences()
            self._report_failure(sequences, kind)

    def _next_plan(self) -> StepPlan | None:
        """Take in what was aborted and plan a step; sleep while there is nothing to run. None: stop."""
        with self._wake:
            while not (self._stopping or self._gone or self._scheduler.has_work):
                self._scheduler.check()
                self._wake.wait()
            if self._stopping:
                return None
            while self._gone:
                key = self._gone.popleft()
                self._scheduler.abort(key)
                self.accounts.forget(key, self._clock())
            plan = self._scheduler.plan(self._epoch, self._info.incarnation, self._most_prefill())
            if plan.admit:
                self.accounts.start(self._scheduler.running(), self._clock())
            return plan

    def _most_prefill(self) -> int | None:
        """Prompt tokens beside decodes; any number after a loss, until every stream that stands still is back."""
        if self._config.static_batching or self._scheduler.recovering:
            return None
        return self._pace.prefill_tokens(self._scheduler.running_count)

    def _step(self, plan: StepPlan) -> None:
        try:
            self._head.submit(plan)
            result = None
            while result is None and not self._stopping:
                result = self._head.poll(_POLL_SECONDS)
        except HeadLost as error:
            self._said.warn(self._clock(), "the head is lost; its sequences will be run again", detail=error)
            self._events.add(Kind.HEAD_LOST, str(error))
            with self._wake:
                given_up = self._scheduler.head_lost()
            if given_up:
                log.error("given up, as heads end one after the other in their steps: %s", [s.key for s in given_up])
            self._report_failure(given_up, "internal")
            self._begin_again()
            return
        if isinstance(result, StepResult):
            self._commit(plan, result)
        elif isinstance(result, StepFailure):
            self._fail(result)

    def _commit(self, plan: StepPlan, result: StepResult) -> None:
        with self._wake:
            faulty = self._scheduler.drop_faulty(result)
            drawn = self._scheduler.commit(plan, result)
        for sequence, fault in faulty:
            log.error("sequence %s cannot go on (%s): %s", sequence.key, fault.kind, fault.detail)
            self.accounts.faults[fault.kind] += 1
            self._report_failure([sequence], fault.kind)
        self._pace.observe(plan, result.seconds)
        self.accounts.count(plan, result)
        now = self._clock()
        if drawn:
            self._sink([self.accounts.event(d, now) for d in drawn])

    def _fail(self, failure: StepFailure) -> None:
        """A step that was refused or failed: `stale` means a new head, which only needs the sequences again."""
        log.warning("step %d failed (%s): %s", failure.step, failure.kind, failure.detail)
        if failure.kind != "stale":
            with self._wake:
                running = self._scheduler.running()
                for sequence in running:
                    self._scheduler.abort(sequence.key)
            self._report_failure(running, failure.kind)
        self._begin_again()

    def _begin_again(self) -> None:
        """Adopt the (restarted) head anew and queue every sequence for another prefill."""
        with self._wake:
            self._scheduler.requeue_all()
        if info := self._begin():
            if info.incarnation != self._info.incarnation:
                self.accounts.head_restarts += 1
                self._events.add(Kind.HEAD_RESTARTED)
            self._info = info
            with self._wake:
                unfit = self._scheduler.resize(self._config.limits(info))
            self._report_failure(unfit, "unavailable")

    def _take_over(self) -> HeadInfo | None:
        """The later engine has the head, whatever the clocks say, of this machine or another."""
        while True:
            try:
                return self._begin()
            except HeadTaken as taken:
                log.info("an earlier engine had epoch %d, by a clock that was ahead; going on from there", taken.epoch)
                self._epoch = taken.epoch

    def _begin(self) -> HeadInfo | None:
        """Adopt the head, or wait for it to come back; None if the engine is stopped meanwhile. Raises HeadLost."""
        end = self._clock() + self._config.head_grace
        self._adopted = False
        while not self._stopping:
            self._epoch += 1
            try:
                info = self._head.begin(self._epoch)
                self._adopted = True
                return info
            except HeadLost as error:
                if self._clock() >= end:
                    raise
                self._said.warn(self._clock(), "the head does not answer yet", detail=error)
                time.sleep(_RETRY_SECONDS)
        return None

    def _report_failure(self, sequences: list[Sequence], kind: str) -> None:
        for sequence in sequences:
            self.accounts.forget(sequence.key, self._clock())
        self._sink([FailureEvent(sequence.key, kind) for sequence in sequences])
