"""How long a layer's expert calls take, and from when on to doubt them. The fit is of what the router sees, from
sending a layer's calls to its last answer, by the rows of the largest one: it holds Ray, network, queueing and the
slowest device. Hedging after a high quantile of that is from Dean and Barroso, "The Tail at Scale" (CACM 2013).
"""

import collections
import math

_FORGET = 0.98  # weight of the past at each observation: about the last fifty layers count
_RATIOS = 256  # observations behind the quantile
_REFRESH = 32  # observations between two looks at the quantile
_QUANTILE = 0.99
_LEAST_SPREAD = 1.0  # rows squared: below it all calls are of one size, and a slope would be noise


class Deadlines:
    """Least squares with forgetting of seconds = a + b * rows. Deadlines are `factor` times that, at least `floor`."""

    def __init__(self, factor: float = 4.0, floor: float = 0.25) -> None:
        self._factor, self._floor = factor, floor
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._ratios: collections.deque[float] = collections.deque(maxlen=_RATIOS)
        self._since_refresh, self._slow = 0, math.inf

    def observe(self, rows: int, seconds: float) -> None:
        """A layer whose largest call had this many rows took `seconds`. More than the deadline counts as the deadline:
        a call that hung must not teach the next to be waited for as long, while a slower machine is followed in a few
        dozen layers.
        """
        if self._n:
            seconds = min(seconds, self.deadline(rows))
            self._ratios.append(seconds / max(self.expect(rows), 1e-9))
            self._since_refresh += 1
            if self._since_refresh >= _REFRESH:
                self._since_refresh = 0
                self._slow = sorted(self._ratios)[min(len(self._ratios) - 1, int(_QUANTILE * len(self._ratios)))]
        self._n = _FORGET * self._n + 1.0
        self._x = _FORGET * self._x + rows
        self._y = _FORGET * self._y + seconds
        self._xx = _FORGET * self._xx + rows * rows
        self._xy = _FORGET * self._xy + rows * seconds

    def line(self) -> tuple[float, float]:
        """a and b: seconds of a call without rows, and of each row. Both are 0 before the first observation."""
        if not self._n:
            return 0.0, 0.0
        x, y = self._x / self._n, self._y / self._n
        spread = self._xx / self._n - x * x
        slope = max(0.0, (self._xy / self._n - x * y) / spread) if spread >= _LEAST_SPREAD else 0.0
        start = y - slope * x
        return (start, slope) if start > 0 else (0.0, y / max(x, 1.0))

    def expect(self, rows: int) -> float:
        start, slope = self.line()
        return start + slope * rows

    def deadline(self, rows: int) -> float:
        """Seconds after which a call of this size is sent again."""
        return max(self._floor, self._factor * self.expect(rows))

    def hedge_after(self, rows: int) -> float:
        """Seconds after which a call is slower than all but one of a hundred; infinite until that is known."""
        return self._slow * self.expect(rows) if self._slow < math.inf else math.inf

    def parts(self, rows: int, replicas: int) -> int:
        """Among how many replicas to split a call, so that a part's rows cost as much as a call does by itself."""
        start, slope = self.line()
        if replicas < 2 or start <= 0:
            return 1
        return max(1, min(replicas, rows, int(rows * slope / start)))
