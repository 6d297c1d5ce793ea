"""The machines of the cluster, as they were a moment ago."""

import time
from collections.abc import Callable, Iterable

from actors.vitals import NodeInfo

_FRESH_SECONDS = 2.0  # how old what is known may be
_NOT_LOOKED: tuple[float, tuple[NodeInfo, ...]] = (float("-inf"), ())  # when, and what there was


class Nodes:
    """May be used from any thread."""

    def __init__(self, look: Callable[[], Iterable[NodeInfo]], clock: Callable[[], float] = time.monotonic) -> None:
        """`look` asks Ray."""
        self._look, self._clock = look, clock
        self._seen = _NOT_LOOKED

    def fresh(self) -> tuple[NodeInfo, ...]:
        """The machines, looked at now or at most two seconds ago."""
        at, nodes = self._seen
        if self._clock() - at > _FRESH_SECONDS:
            nodes = tuple(self._look())
            self._seen = self._clock(), nodes
        return nodes

    def outdated(self) -> None:
        """One may be gone: look again when they are wanted next."""
        self._seen = _NOT_LOOKED
