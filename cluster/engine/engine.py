"""A thread that turns requests into steps of the head, and results into events: `plan -> head.step -> commit`, until
nothing is left to run; then it sleeps. It knows neither Ray nor gRPC nor torch.
"""

import collections
import copy
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from actors.seams import HeadHandle, HeadLost, HeadTaken
from cluster.engine.adoption import Adoption
from cluster.engine.events import Event as EngineEvent
from cluster.engine.events import Failed, Sink
from cluster.engine.statistics import Statistics
from cluster.observe.events import Event, EventLog, Kind
from cluster.observe.said_once import SaidOnce
from cluster.observe.view import EngineCounters
from cluster.policy.scheduling.limits import Limits, QueueBounds, admits
from cluster.policy.scheduling.prefill_budget import PrefillBudget
from cluster.policy.scheduling.scheduler import Scheduler
from cluster.policy.scheduling.sequence import Sequence, SequenceRequest
from model.batch import HeadInfo, StepFailure, StepPlan, StepResult

log = logging.getLogger("eightwinds.engine")

_POLL_SECONDS = 1.0


@dataclass(eq=False)
class QueueFull(Exception):
    """The bounded queue is full; try again after `retry_seconds`."""

    retry_seconds: float


class EngineStopped(Exception):
    """The engine takes no requests any more."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """cluster/settings/config.py has their meaning and defaults. `head_grace` is in seconds."""

    limits: Limits  # without the pages, which are the head's
    queue: QueueBounds
    head_grace: float
    prefill_slowdown: float
    prefixes_by_tenant: bool
    plan_ahead: bool = False  # send a step while the one before it runs: for a head in a process of its own

    def limits_on(self, head: HeadInfo) -> Limits:
        return replace(self.limits, page_count=head.page_count, page_size=head.page_size)


class Engine:
    """Owns the scheduler. `submit` and `abort` may be called from any thread. All times are those of its `clock`."""

    def __init__(
        self,
        head: HeadHandle,
        config: EngineConfig,
        sink: Sink,
        clock: Callable[[], float] = time.monotonic,
        events: EventLog | None = None,
    ) -> None:
        """`sink` gets each step's events on the engine's thread, `events` the head's ends. `start` begins the work."""
        self.clock = clock
        self.statistics = Statistics()
        self._head, self._config, self._sink = head, config, sink
        self._events = events or EventLog()
        self._adoption = Adoption(head, config.head_grace, clock, lambda: self._stopping)
        self._scheduler = Scheduler(config.limits)
        self._prefill_budget = PrefillBudget(config.prefill_slowdown)
        self._stopping = False
        self._said = SaidOnce(log)
        self._wake = threading.Condition()
        self._gone: collections.deque[str] = collections.deque()
        self._untold: list[EngineEvent] = []  # of the last step; told while the next one runs
        self._under_way: collections.deque[StepPlan] = collections.deque()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Adopt the head, after a wait if it is away, and start the thread. Raises HeadLost or EngineStopped."""
        if not self._adoption.renew():
            raise EngineStopped
        self._scheduler.resize(self._config.limits_on(self._adoption.info))
        self._thread.start()

    def submit(self, requests: list[SequenceRequest]) -> None:
        """Queue the outputs of one client's prompts, all or none; raises QueueFull or EngineStopped."""
        with self._wake:
            if self._stopping:
                raise EngineStopped
            backlog = self._scheduler.backlog(requests[0].client)
            tokens = sum(len(r.prompt_ids) for r in requests if r.sampling.output_index == 0)  # others share its prompt
            if not admits(self._config.queue, backlog, tokens):
                raise QueueFull(self.statistics.retry_seconds(self.clock(), backlog.sequences))
            for request in requests:
                own = request if self._config.prefixes_by_tenant else replace(request, tenant="")
                self._scheduler.add(Sequence(own))
            self._wake.notify()

    def abort(self, sequence_id: str) -> None:
        """Drop a sequence and free its slot and pages before the next step; unknown ids are ignored."""
        with self._wake:
            self._gone.append(sequence_id)
            self._wake.notify()

    @property
    def limits(self) -> Limits:
        return self._scheduler.limits

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    @property
    def adopted(self) -> bool:
        """Whether there is a head that serves this engine; if not, one is waited for."""
        return self._adoption.current

    def check(self) -> None:
        """Raise AssertionError unless every slot and KV page is accounted for; the engine must be idle."""
        with self._wake:
            self._scheduler.check()

    def counters(self) -> EngineCounters:
        """A copy, as they are now."""
        noted, s = copy.deepcopy(self.statistics.counters), self._scheduler
        with self._wake:
            running, waiting, free = len(s.running()), len(s.queue), s.pool.free_count
        return replace(noted, running=running, waiting=waiting, free_pages=free, page_count=s.limits.page_count)

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread; what is still running gets a Failed."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        kind = "stopped"
        try:
            while self._wait_for_work():
                if not self._under_way:
                    self._submit(self._plan())
                self._tell()
                if self._under_way:
                    self._step()
        except HeadTaken as error:
            log.error("this engine ends: %s", error)
        except HeadLost as error:
            log.error("the head did not come back: %s", error)
            kind = "unavailable"
        except Exception:  # a bug of ours, which clients that wait must be told
            log.exception("the engine failed")
            kind = "internal"
        finally:
            with self._wake:
                self._stopping = True
                sequences = self._scheduler.sequences()
            self._report_failure(sequences, kind)

    def _wait_for_work(self) -> bool:
        """Sleep while there is nothing to do; False: stop."""
        if not self._scheduler.has_work:
            self._tell()
        with self._wake:
            while not (self._stopping or self._gone or self._scheduler.has_work or self._under_way):
                self._scheduler.check()
                self._wake.wait()
            return not self._stopping

    def _plan(self) -> StepPlan | None:
        with self._wake:
            self._drop_gone()
            prefill, s = None, self._scheduler  # any number after a loss, until every interrupted stream is back
            if not s.interrupted:
                prefill = self._prefill_budget.tokens(s.decode_count, s.newcomer_count)
            plan = s.plan(self._adoption.epoch, self._adoption.info.incarnation, prefill)
            if plan and plan.admit:
                self.statistics.start(self._scheduler.running(), self.clock())
            return plan

    def _drop_gone(self) -> None:
        while self._gone:
            sequence_id = self._gone.popleft()
            self._scheduler.abort(sequence_id)
            self.statistics.forget(sequence_id, self.clock())

    def _plan_ahead(self) -> StepPlan | None:
        with self._wake:
            self._drop_gone()
            plan = self._scheduler.plan_ahead(self._under_way[-1])
            if plan:
                self._prefill_budget.settle(len(plan.chunks))
            return plan

    def _submit(self, plan: StepPlan | None) -> None:
        if plan:
            self._under_way.append(plan)
            self._head.submit(plan)

    def _step(self) -> None:
        """Take the result of the first step under way, and have a second one behind it meanwhile if it can be."""
        result = None
        try:
            if self._config.plan_ahead and len(self._under_way) == 1:
                self._submit(self._plan_ahead())
            while result is None and not self._stopping:
                result = self._head.poll(_POLL_SECONDS)
        except HeadLost as error:
            self._said.warn(self.clock(), "the head is lost; its sequences will be run again", detail=error)
            self._events.add(Event(Kind.HEAD_LOST, str(error)))
            with self._wake:
                given_up = self._scheduler.head_lost()
            if given_up:
                log.error("given up, as heads end one after the other in their steps: %s", [s.id for s in given_up])
            self._report_failure(given_up, "internal")
            self._begin_again()
            return
        if isinstance(result, StepResult):
            self._commit(self._under_way.popleft(), result)
        elif isinstance(result, StepFailure):
            self._fail(result)

    def _commit(self, plan: StepPlan, result: StepResult) -> None:
        with self._wake:
            faulty = self._scheduler.drop_faulty(result)
            sampled = self._scheduler.commit(plan, result)
        for sequence, fault in faulty:
            log.error("sequence %s cannot go on (%s): %s", sequence.id, fault.kind, fault.detail)
            self.statistics.counters.faults[fault.kind] += 1
            self._report_failure([sequence], fault.kind)
        self._prefill_budget.observe(plan, result.seconds)
        self.statistics.count(plan, result)
        self._untold += self.statistics.events(sampled, self.clock())

    def _tell(self) -> None:
        """Hand the last step's events over. This comes behind the next step's submission, because the threads that take
        them want the interpreter, and the head would wait for it: a stop string ends its output a step later.
        """
        if self._untold:
            self._sink(self._untold)
            self._untold = []

    def _fail(self, failure: StepFailure) -> None:
        """A step that was refused or failed: `stale` means a new head, which only needs the sequences again."""
        log.warning("step %d failed (%s): %s", failure.step, failure.kind, failure.detail)
        if failure.kind != "stale":
            with self._wake:
                dropped = self._scheduler.drop(self._scheduler.running())
            self._report_failure(dropped, failure.kind)
        self._begin_again()

    def _begin_again(self) -> None:
        """Adopt the (restarted) head, and run every sequence again."""
        self._under_way.clear()
        with self._wake:
            self._scheduler.requeue_all()
        before = self._adoption.info.incarnation
        if self._adoption.renew():
            if self._adoption.info.incarnation != before:
                self.statistics.counters.head_restarts += 1
                self._events.add(Event(Kind.HEAD_RESTARTED))
            with self._wake:
                unfit = self._scheduler.resize(self._config.limits_on(self._adoption.info))
            self._report_failure(unfit, "unavailable")

    def _report_failure(self, sequences: list[Sequence], kind: str) -> None:
        self._tell()  # what they had comes first
        now = self.clock()
        for sequence in sequences:
            self.statistics.forget(sequence.id, now)
        self._sink([Failed(sequence.id, kind) for sequence in sequences])
