"""Events of experts whose calls are hedged more often than usual; `cluster.policy.replicas.hedging` decides."""

import threading
from collections.abc import Callable

from actors.usage import HeadUsage
from cluster.observe.events import EventLog, Kind
from cluster.policy.replicas.hedging import Hedging


class HedgeWatch:
    """May be used from any thread."""

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
                self._events.add(Kind.EXPERT_HEDGED, why, expert=excess.expert)
        return usage
