"""How long each replica of an expert takes beside the others: on mixed machines the slowest one decides a layer."""

from collections.abc import Sequence

from actors.replica import Replica

_FORGET = 0.9  # weight of the past at each reply
_KNOWN = 1e-12  # seconds of a row; less is no measurement
_MOST = 1024  # replicas that are remembered; those that have gone are the first to be forgotten
_ALIKE = 4 / 3  # times the fastest one's time: less than that is noise on a shared machine


class Paces:
    """Means of each replica's service time over what a call of its rows takes by all replicas together."""

    def __init__(self) -> None:
        self._means: dict[Replica, float] = {}

    def observe(self, replica: Replica, seconds: float, expected: float) -> None:
        """It served a call in so many `seconds`; nothing is learned while it is not known what to expect."""
        if expected > 0:
            now = seconds / expected
            mean = self._means.pop(replica, now)
            self._means[replica] = _FORGET * mean + (1 - _FORGET) * now  # it is the newest now
            if len(self._means) > _MOST:
                del self._means[next(iter(self._means))]

    def of(self, replicas: Sequence[Replica]) -> list[float]:
        """Of each: 1 for the fastest, those like it, and those that have not served yet; more for slower ones."""
        if len(self._means) < 2:
            return [1.0] * len(replicas)
        means = [self._means.get(replica, 0.0) for replica in replicas]
        fastest = min((mean for mean in means if mean), default=0.0)
        return [mean / fastest if mean > _ALIKE * fastest else 1.0 for mean in means]

    def shares(self, rows: int, replicas: Sequence[Replica], line: tuple[float, float]) -> list[int]:
        """Rows for each part of a call, so that all parts end at the same time; they add up to `rows`. A part takes its
        replica's pace times the `line`: seconds of a call, and of each row. Where a call without a row would end too
        late there, it gets none.
        """
        start, slope = line
        paces = self.of(replicas)
        if slope < _KNOWN or max(paces) == min(paces):
            paces, start, slope = [1.0] * len(replicas), 0.0, 1.0
        taken = list(range(len(replicas)))
        while True:
            rates = sum(1 / paces[i] for i in taken)
            end = (rows * slope + len(taken) * start) / rates
            late = [i for i in taken if paces[i] * start >= end]
            if not late:
                break
            taken = [i for i in taken if i not in late]
        return _whole(rows, [(end / pace - start) / slope if i in taken else 0.0 for i, pace in enumerate(paces)])


def _whole(rows: int, shares: Sequence[float]) -> list[int]:
    """Shares in whole rows."""
    found, given, exact = list[int](), 0, 0.0
    for share in shares:
        exact += share
        found.append(min(rows, round(exact)) - given if share else 0)
        given += found[-1]
    last = max(range(len(shares)), key=lambda i: shares[i])
    found[last] += rows - given
    return found
