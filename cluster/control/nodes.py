"""The machines of the cluster, as they were a moment ago."""

import threading
from collections.abc import Callable, Iterable

from actors.vitals import NodeInfo
from cluster.observe.events import Event, EventLog, Kind

_FRESH_SECONDS = 2.0  # how old what is known may be
_NOT_LOOKED: tuple[float, tuple[NodeInfo, ...]] = (float("-inf"), ())  # when, and what there was


class Nodes:
    """May be used from any thread."""

    def __init__(
        self, look: Callable[[], Iterable[NodeInfo]], known: Iterable[str], clock: Callable[[], float], events: EventLog
    ) -> None:
        """`look` asks Ray. Replicas run on `known` nodes; a node that is gone is noted in `events`."""
        self._look, self._clock, self._events = look, clock, events
        self._alive = set(known)  # at some time
        self._lost: set[str] = set()  # ... and later not: Ray gives a node that comes back another id
        self._lock = threading.Lock()
        self._seen = _NOT_LOOKED

    def fresh(self) -> tuple[NodeInfo, ...]:
        """The machines, looked at now or at most two seconds ago."""
        at, nodes = self._seen
        if self._clock() - at > _FRESH_SECONDS:
            nodes = tuple(self._look())
            self._seen = self._clock(), nodes
            self._note_lost(nodes)
        return nodes

    def _note_lost(self, nodes: Iterable[NodeInfo]) -> None:
        with self._lock:
            for node in nodes:
                if node.alive:
                    self._alive.add(node.node_id)
                elif node.node_id in self._alive - self._lost:
                    self._lost.add(node.node_id)
                    self._events.add(Event(Kind.NODE_LOST, node_id=node.node_id))

    def outdated(self) -> None:
        """One may be gone: look again when they are wanted next."""
        self._seen = _NOT_LOOKED
