"""Whether a step runs as two micro-batches in turns: while experts compute for one, the head computes for the other.

It hides the way to the experts and back, and costs a second reading of their weights: which is more depends on the
machines, the links and the batch. So both ways are timed, for batches of about one size at a time. Pure: no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from model.batch import Chunk

_LEAST_TOKENS = 8
_TRIALS = 3  # steps of either way before they are compared
_AGAIN = 64  # steps until the way that lost is tried once more
_FAR_BEHIND = 1.15  # a trial of two has lost by far if it takes so many times as long as one
_REST = 512  # steps without a trial, of whatever size, after two trials in a row have lost by far
_NEWEST = 0.2  # weight of the newest step in a mean
_OUTLIER = 1.5  # a step counts as at most so many times the mean: an expert may have restarted
_GAIN = 0.97  # two are chosen if they take at most so much of one's time, because noise must not decide

Parts = list[tuple[Chunk, ...]]


@dataclass(slots=True)
class _Timing:
    """Mean seconds of steps with one and with two micro-batches, and how many of each there were."""

    mean: list[float] = field(default_factory=lambda: [0.0, 0.0])
    count: list[int] = field(default_factory=lambda: [0, 0])
    since: int = 0  # steps since the way that loses was tried

    def note(self, way: int, seconds: float) -> None:
        if self.count[way] >= _TRIALS:
            seconds = min(seconds, _OUTLIER * self.mean[way])
        self.count[way] += 1
        self.mean[way] += max(_NEWEST, 1 / self.count[way]) * (seconds - self.mean[way])

    @property
    def best(self) -> int:
        """0: one, 1: two. One, until both are known."""
        one, two = self.mean
        return int(min(self.count) >= _TRIALS and two < _GAIN * one)

    def choose(self, may_try: bool) -> int:
        if self.count[0] < _TRIALS:
            return 0
        self.since += 1
        if may_try and (self.count[1] < _TRIALS or self.since >= _AGAIN):
            self.since = 0
            return 1 - self.best
        return self.best


class MicroBatches:
    """`fixed` is 1 or 2 for always so many (where a step can be cut), 0 for what is measured to be faster."""

    def __init__(self, fixed: int = 0) -> None:
        self._fixed = fixed
        self._timings: dict[tuple[int, int], _Timing] = {}
        self._last: tuple[_Timing, int] | None = None
        self._lost = 0  # trials of two in a row that lost by far; others will, too, whatever their size
        self._rest = 0  # steps without a trial

    def parts(self, chunks: Sequence[Chunk], large: bool = False) -> Parts:
        """The chunks of a step in their order, as one run or two. `observe` tells how long it took. One whose results
        are `large` is one run: two parts of them would be held beside the whole.
        """
        whole, self._last = tuple(chunks), None
        cut = _cut(whole)
        if not cut or large or self._fixed == 1:
            return [whole]
        if not self._fixed:
            timing = self._timings.setdefault(_size(whole), _Timing())
            self._rest = max(0, self._rest - 1)
            self._last = timing, timing.choose(may_try=not self._rest)
            if not self._last[1]:
                return [whole]
        return [whole[:cut], whole[cut:]]

    def observe(self, seconds: float) -> None:
        if self._last is not None:
            timing, way = self._last
            if way > timing.best:
                self._lost = self._lost + 1 if seconds > _FAR_BEHIND * timing.mean[0] else 0
                if self._lost >= 2:
                    self._lost, self._rest = 0, _REST
            timing.note(way, seconds)


def _cut(chunks: tuple[Chunk, ...]) -> int:
    """Where to cut: between decodes and prefill if there are both, else in the middle; 0 if it is not worth it."""
    tokens = sum(chunk.length for chunk in chunks)
    if len(chunks) < 2 or tokens < _LEAST_TOKENS:
        return 0
    decodes = sum(chunk.length == 1 for chunk in chunks)
    if 0 < decodes < len(chunks) and all(chunk.length == 1 for chunk in chunks[:decodes]):
        return decodes
    before = 0
    for index, chunk in enumerate(chunks):
        if before + chunk.length / 2 >= tokens / 2:
            return max(1, index)
        before += chunk.length
    return len(chunks) - 1


def _size(chunks: tuple[Chunk, ...]) -> tuple[int, int]:
    """Of about one size are steps with as many eights of decodes, and prefill between two powers of two."""
    decodes = sum(chunk.length == 1 for chunk in chunks)
    return decodes // 8, (sum(chunk.length for chunk in chunks) - decodes).bit_length()
