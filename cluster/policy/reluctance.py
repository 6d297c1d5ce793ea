"""How long a refusal is held back, so that a flood of calls that are refused anyway costs its sender time, not ours."""

from collections import Counter


class Reluctance:
    """Of each address, `at_once` refusals a second are answered at once, more of them after `seconds`. At most `most`
    are held at a time; what is more is answered at once, because holding costs memory.
    """

    def __init__(self, at_once: int = 20, seconds: float = 1.0, most: int = 2048) -> None:
        self._at_once, self._seconds, self._most = at_once, seconds, most
        self._second, self._seen = 0, Counter[str]()

    def seconds(self, address: str, now: float, held: int) -> float:
        """For a refusal `now`, in seconds, while `held` others are being held back."""
        if int(now) != self._second:
            self._second, self._seen = int(now), Counter()
        self._seen[address] += 1
        return self._seconds if self._seen[address] > self._at_once and held < self._most else 0.0
