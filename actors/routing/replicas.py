"""The router's view of the experts' replicas: which there are, which to doubt, what each has under way."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Collection

from actors.replica import Replica, ReplicaId, Table
from actors.routing.paces import Paces

_FIRST_DOUBT = 1.0  # seconds that a replica is left alone after a failed call; doubled with each further one
_LONGEST_DOUBT = 30.0
_LOOK = 10.0  # seconds between two calls of an expert that go to a slow replica
_LATE_DOUBT = 60.0  # ... after a late one, unless it answers before


class Replicas:
    """Chooses among the replicas of a `table`, which another thread may replace; all else but `queued` and `doubted`
    is for one thread. A replica whose call failed or was late is doubted for a while, or until it answers: others are
    preferred to it.
    """

    def __init__(
        self, table: Table, rng: random.Random | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.table, self._rng, self._clock = table, rng or random.Random(), clock
        self.paces = Paces()
        self._looked: dict[int, float] = {}  # by expert: when a slow one was looked at
        self._rows: dict[Replica, int] = {}  # under way
        self._doubts: dict[Replica, tuple[float, float]] = {}  # (until when, the length of the next one)

    def trusted(self, expert: int, without: Collection[Replica] = ()) -> list[Replica]:
        now = self._clock()
        return [r for r in self.table[expert] if r not in without and not self._doubted(r, now)]

    def choose(self, expert: int, rows: int = 1) -> Replica | None:
        """Of two chosen at random the one that has these rows done first, by what is under way (Mitzenmacher, "The
        Power of Two Choices", 2001) and by their paces, trusted ones first; None if there is none. Every few seconds
        the slowest one, because a replica that gets no calls shows no other pace.
        """
        candidates = self.trusted(expert) or list(self.table[expert])
        if len(candidates) > 2:
            candidates = self._rng.sample(candidates, 2)
        elif len(candidates) == 2 and self._rng.random() < 0.5:
            candidates.reverse()
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        paces = self.paces.of(candidates)
        if max(paces) > 1 and self._clock() - self._looked.get(expert, -math.inf) > _LOOK:
            self._looked[expert] = self._clock()
            return candidates[paces.index(max(paces))]
        ends = [(self.rows_of(replica) + rows) * pace for replica, pace in zip(candidates, paces, strict=True)]
        return candidates[ends.index(min(ends))]

    def spread(self, expert: int, parts: int) -> list[Replica]:
        """At most `parts` replicas for the parts of a large call, fewest rows under way first."""
        trusted = self.trusted(expert)
        paces = dict(zip(trusted, self.paces.of(trusted), strict=True))
        return sorted(trusted, key=lambda replica: (self.rows_of(replica), paces[replica]))[:parts]

    def rows_of(self, replica: Replica) -> int:
        return self._rows.get(replica, 0)

    def send(self, replica: Replica, rows: int) -> None:
        assert rows > 0, "a call without rows cannot be told from none"
        self._rows[replica] = self._rows.get(replica, 0) + rows

    def answered(self, replica: Replica, rows: int) -> None:
        """It answered a call, however late."""
        self._end(replica, rows)
        if self._doubts:
            self._doubts.pop(replica, None)

    def failed(self, replica: Replica, rows: int) -> None:
        self._end(replica, rows)
        _, pause = self._doubts.get(replica, (0.0, _FIRST_DOUBT))
        self._doubts[replica] = (self._clock() + pause, min(2 * pause, _LONGEST_DOUBT))
        for gone in [r for r in self._doubts if r not in self.table[r.expert] and r != replica]:
            del self._doubts[gone]

    def late(self, replica: Replica) -> None:
        """A call to it passed its deadline; it may yet answer."""
        _, pause = self._doubts.get(replica, (0.0, _FIRST_DOUBT))
        self._doubts[replica] = (self._clock() + _LATE_DOUBT, pause)

    def _end(self, replica: Replica, rows: int) -> None:
        left = self._rows[replica] - rows
        assert left >= 0, f"{replica} has {left} rows under way"
        self._rows[replica] = left
        if not left:
            del self._rows[replica]

    def _doubted(self, replica: Replica, now: float) -> bool:
        doubt = self._doubts.get(replica) if self._doubts else None
        return doubt is not None and now < doubt[0]

    def queued(self) -> dict[ReplicaId, int]:
        """Rows under way by replica."""
        rows = Counter[ReplicaId]()
        for replica, count in list(self._rows.items()):
            rows[replica.id] += count
        return rows

    def doubted(self) -> frozenset[ReplicaId]:
        now = self._clock()
        return frozenset(r.id for row in self.table for r in row if self._doubted(r, now))

    def check(self) -> None:
        """AssertionError if calls are under way; for when none should be."""
        assert not self._rows, f"rows under way: {self._rows}"
