"""The machines as they were last looked at, and where replicas go among them."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from actors.vitals import NodeInfo
from cluster.observe.events import EventLog, Kind
from cluster.policy.replicas.membership import Change
from cluster.policy.replicas.placement import Node, Placed, assign

_FRESH_SECONDS = 2.0  # how old what is known may be
_NOT_LOOKED: tuple[float, tuple[NodeInfo, ...]] = (float("-inf"), ())  # when, and what there was


class Nodes:
    """May be used from any thread."""

    def __init__(
        self,
        look: Callable[[], Iterable[NodeInfo]],
        needs: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
        events: EventLog | None = None,
    ) -> None:
        """`look` asks Ray; `needs` is what it reserves for a replica; a node that is gone is noted in `events`."""
        self._look, self._needs, self._clock, self._events = look, needs, clock, events or EventLog()
        self._alive: set[str] = set()  # at some time
        self._lost: set[str] = set()  # ... and later not: Ray gives a node that comes back another id
        self._lock = threading.Lock()
        self._seen = _NOT_LOOKED

    def fresh(self) -> tuple[NodeInfo, ...]:
        """Those there are, as of a moment ago."""
        at, nodes = self._seen
        if self._clock() - at > _FRESH_SECONDS:
            nodes = tuple(self._look())
            self._seen = self._clock(), nodes
            self._note_lost(nodes)
        return nodes

    def known(self, node_ids: Iterable[str]) -> None:
        """These are alive: replicas run there."""
        with self._lock:
            self._alive.update(filter(None, node_ids))

    def _note_lost(self, nodes: Iterable[NodeInfo]) -> None:
        with self._lock:
            for node in nodes:
                if node.alive:
                    self._alive.add(node.node_id)
                elif node.node_id in self._alive - self._lost:
                    self._lost.add(node.node_id)
                    self._events.add(Kind.NODE_LOST, node_id=node.node_id)

    def outdated(self) -> None:
        """One may be gone: look again when somebody asks."""
        self._seen = _NOT_LOOKED

    def place(
        self,
        changes: Sequence[Change],
        nodes: Sequence[NodeInfo],
        there: Collection[Placed],
        avoided: Collection[str],
    ) -> list[Change]:
        """Give each replica that starts a node."""
        usable = [Node(node.node_id, node.free) for node in nodes if node.alive and node.node_id not in avoided]
        where = assign([change.key for change in changes if change.start], usable, there, self._needs)
        return [replace(change, node_id=where[change.key]) if change.start else change for change in changes]
