"""Which experts' calls are hedged more often than usual. Usual is about one call in a hundred, because a call is hedged
above the 99th percentile of its time (actors/routing/deadlines.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

USUAL_SHARE = 0.05  # of an expert's calls; more are worth a look at its machine
FEWEST = 5  # hedges; fewer are chance
WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Excess:
    expert: int
    hedges: int
    calls: int


class Hedging:
    """Compares the head's counters with those of up to a minute ago. An expert is named once in a minute."""

    def __init__(self) -> None:
        self._begin("", (), (), float("-inf"))

    def due(self, incarnation: str, calls: Sequence[int], hedges: Sequence[int], now: float) -> list[Excess]:
        """The experts to name. The counters are by expert, since this incarnation of the head began."""
        if incarnation != self._incarnation:
            self._begin(incarnation, calls, hedges, now)
        grown = [
            Excess(expert, hedges[expert] - self._hedges[expert], calls[expert] - self._calls[expert])
            for expert in range(len(hedges))
            if expert not in self._named
        ]
        found = [e for e in grown if e.hedges >= FEWEST and e.hedges > USUAL_SHARE * e.calls]
        self._named |= {excess.expert for excess in found}
        if now - self._since >= WINDOW_SECONDS:
            self._begin(incarnation, calls, hedges, now)
        return found

    def _begin(self, incarnation: str, calls: Sequence[int], hedges: Sequence[int], now: float) -> None:
        self._incarnation, self._since = incarnation, now
        self._calls, self._hedges = tuple(calls), tuple(hedges)
        self._named = set[int]()
