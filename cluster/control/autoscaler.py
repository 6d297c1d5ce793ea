"""Scaling by usage: looks at how busy replicas are, asks the policy, tells the controller."""

import logging
import time
from collections.abc import Callable, Sequence

from cluster.control.controller import Controller
from cluster.control.errors import RevisionMoved
from cluster.control.ticker import Ticker
from cluster.observe.events import Event, EventLog, Kind
from cluster.observe.usage import between
from cluster.observe.view import ClusterView
from cluster.policy.replicas.scaling import ScalingPolicy, Use, decide

log = logging.getLogger("eightwinds.autoscaler")

INTERVAL_SECONDS = 5.0


class Autoscaler:
    """A thread that sleeps unless the policy is enabled. `policy` may be read and `set` from any thread."""

    def __init__(
        self,
        controller: Controller,
        policy: ScalingPolicy,
        clock: Callable[[], float] = time.monotonic,
        interval: float = INTERVAL_SECONDS,
        events: EventLog | None = None,
        keep: Callable[[ScalingPolicy], None] = lambda policy: None,
    ) -> None:
        """`start` begins the work; `interval` is what one decision looks back on, in seconds. A policy that is set is
        kept: `Wishes.keep_policy`.
        """
        self._keep = keep
        self._controller, self.policy, self._clock, self._interval = controller, policy, clock, interval
        self._events = events or EventLog()
        self._before: ClusterView | None = None
        self._changed: dict[int, float] = {}
        self._desired: list[int] = []  # as of the last look: a change by somebody else has its cooldown, too
        self._ticker = Ticker("autoscaler", self._turn, lambda: self._interval if self.policy.enabled else None)

    def set(self, policy: ScalingPolicy) -> None:
        self.policy, self._before, self._desired = policy, None, []
        self._keep(policy)
        self._ticker.wake()

    def start(self) -> None:
        self._ticker.start()

    def stop(self) -> None:
        self._ticker.stop()

    def _turn(self) -> None:
        if self.policy.enabled:
            self.look()

    def look(self) -> dict[int, int]:
        """Decide on what came since the last look, and have it done; what was changed."""
        used = self._controller.usage()  # first, because it may take seconds
        view = ClusterView(self._clock(), self._controller.snapshot(), used)
        before, self._before = self._before, view
        now, head, snapshot, ready = view.at, view.head, view.replicas, view.ready
        self._note_changes(snapshot.desired, now)
        if before is None or head is None or before.head is None or before.head.incarnation != head.incarnation:
            return {}
        usage = between(before, view).experts
        uses = [
            Use(e, desired, ready[e], usage[e].utilization, now - self._changed.get(e, float("-inf")))
            for e, desired in enumerate(snapshot.desired)
        ]
        if wanted := decide(self.policy, uses):
            try:
                self._controller.scale(wanted, expected_revision=snapshot.revision, afresh=False)
            except RevisionMoved:  # another change came first: the next look sees it
                return {}
            for e, count in wanted.items():
                why = f"{uses[e].desired} -> {count} replicas, {100 * uses[e].utilization:.0f} % busy"
                log.info("expert %d: %s", e, why)
                self._events.add(Event(Kind.EXPERT_SCALED, why, expert=e, requester="autoscaler"))
            self._note_changes([wanted.get(e, count) for e, count in enumerate(snapshot.desired)], now)
        return wanted

    def _note_changes(self, desired: Sequence[int], now: float) -> None:
        changed = [e for e, (old, new) in enumerate(zip(self._desired, desired, strict=False)) if old != new]
        self._changed.update(dict.fromkeys(changed, now))
        self._desired = list(desired)
