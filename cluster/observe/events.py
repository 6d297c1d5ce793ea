"""The last events of the cluster, numbered in the order in which they were noticed."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from actors.usage import HeadUsage
from cluster.policy.replicas.hedging import Hedging

_LONGEST_CAUSE = 1000  # characters; what Ray says of a death may be pages


class Kind(StrEnum):
    """See `Event.Kind` in protos/eightwinds/v1/cluster.proto."""

    REPLICA_JOINED = "replica joined"
    REPLICA_DIED = "replica died"
    REPLICA_RESTARTED = "replica restarted"
    REPLICA_LOST = "replica lost"
    REPLICA_FAILED = "replica failed"
    REPLICA_RETIRED = "replica retired"
    EXPERT_SCALED = "expert scaled"
    EXPERT_HEDGED = "expert hedged"
    POLICY_CHANGED = "policy changed"
    NODE_DRAINED = "node drained"
    NODE_RESTORED = "node restored"
    NODE_LOST = "node lost"
    HEAD_LOST = "head lost"
    HEAD_RESTARTED = "head restarted"


@dataclass(frozen=True, slots=True)
class Event:
    """`requester` is the caller that asked for it, or `autoscaler`. The log gives it its number, and `at`, in seconds
    since 1970.
    """

    kind: Kind
    cause: str = ""
    expert: int | None = None
    replica: int | None = None
    node_id: str = ""
    requester: str = ""
    sequence: int = 0
    at: float = 0.0


class EventLog:
    """Keeps the last `most` events. May be used from any thread."""

    def __init__(self, most: int = 1000, clock: Callable[[], float] = time.time) -> None:
        self._events: deque[Event] = deque(maxlen=most)
        self._clock, self._lock, self._last = clock, threading.Lock(), 0

    def add(self, event: Event) -> None:
        cause = event.cause[:_LONGEST_CAUSE]
        with self._lock:
            self._last += 1
            self._events.append(replace(event, cause=cause, sequence=self._last, at=self._clock()))

    def after(self, sequence: int) -> list[Event]:
        """The events with a higher number, oldest first; all if no event has had this number yet, because it is an
        earlier server's.
        """
        with self._lock:
            return [event for event in self._events if event.sequence > sequence or sequence > self._last]

    def recent(self, count: int) -> list[Event]:
        """The last `count` events, oldest first."""
        with self._lock:
            return list(self._events)[-count:]


class HedgeWatch:
    """Events of experts whose calls are hedged more often than usual. May be used from any thread."""

    def __init__(self, events: EventLog, clock: Callable[[], float]) -> None:
        self._events, self._clock = events, clock
        self._hedging, self._lock = Hedging(), threading.Lock()

    def seen(self, usage: HeadUsage | None) -> HeadUsage | None:
        """Note what is unusual in it; the same usage."""
        if usage is not None:
            calls = [sum(r.calls for i, r in usage.replicas.items() if i.expert == e) for e in range(len(usage.hedges))]
            with self._lock:
                found = self._hedging.due(usage.incarnation, calls, usage.hedges, self._clock())
            for excess in found:
                why = f"{excess.hedges} hedges among {excess.calls} calls within a minute"
                self._events.add(Event(Kind.EXPERT_HEDGED, why, expert=excess.expert))
        return usage
