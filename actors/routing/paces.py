"""How long each replica of an expert takes beside the others: on mixed machines the slowest one decides a layer."""

from collections.abc import Sequence

from actors.replica import Replica

_FORGET = 0.9  # weight of the past at each reply
_ALIKE = 4 / 3  # times the fastest one's time: less than that is noise on a shared machine


class Paces:
    """Means of each replica's service time over what a call of its rows takes by all replicas together."""

    def __init__(self) -> None:
        self._means: dict[Replica, float] = {}

    def observe(self, replica: Replica, seconds: float, expected: float) -> None:
        """It served a call in so many `seconds`; nothing is learned while it is not known what to expect."""
        if expected > 0:
            now = seconds / expected
            self._means[replica] = _FORGET * self._means.get(replica, now) + (1 - _FORGET) * now

    def keep(self, replicas: Sequence[Replica]) -> None:
        """Forget all others."""
        self._means = {replica: mean for replica, mean in self._means.items() if replica in replicas}

    def of(self, replicas: Sequence[Replica]) -> list[float]:
        """Of each: 1 for the fastest, those like it, and who has not served yet; more for slower ones."""
        if len(self._means) < 2:
            return [1.0] * len(replicas)
        means = [self._means.get(replica, 0.0) for replica in replicas]
        fastest = min((mean for mean in means if mean), default=0.0)
        return [mean / fastest if mean > _ALIKE * fastest else 1.0 for mean in means]

    def shares(self, rows: int, replicas: Sequence[Replica]) -> list[int]:
        """Rows for each part of a call, so that all end at the same time; they add up to `rows`."""
        rates = [1 / pace for pace in self.of(replicas)]
        total, given, shares = sum(rates), 0, list[int]()
        for i in range(len(rates)):
            shares.append(round(rows * sum(rates[: i + 1]) / total) - given)
            given += shares[-1]
        return shares
