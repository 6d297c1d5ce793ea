"""Refusals, counted by reason, and logged so seldom that a flood of them is no flood of lines."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

log = logging.getLogger("eightwinds.refused")

_SECONDS_BETWEEN_LINES = 10.0


class Refusals:
    """Counts by UPPER_SNAKE reason, with a line for a reason at once. Refusals within ten seconds of a line are named
    in the next one, which the next refusal brings.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = Counter[str]()
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}  # reason: when a line was written, and the count then

    def note(self, reason: str, who: str = "") -> None:
        """One more; `who` is the peer's address as gRPC or the socket gives it, or a caller's name."""
        self.counts[reason] += 1
        count, now = self.counts[reason], self._clock()
        when, before = self._said.get(reason, (float("-inf"), 0))
        if now - when < _SECONDS_BETWEEN_LINES:
            return
        self._said[reason] = now, count
        log.warning("refused %d with %s, %d in all; the last one from %s", count - before, reason, count, who or "?")


class Reluctance:
    """How long a refusal is held back, so that a flood of refused calls costs its sender time, not ours. Of an address,
    `at_once` refusals a second are answered at once, more of them after `seconds`. At most `most` are held at a time;
    what is more is answered at once, because holding costs memory.
    """

    def __init__(self, at_once: int = 20, seconds: float = 1.0, most: int = 2048) -> None:
        self._at_once, self._seconds, self._most = at_once, seconds, most
        self._second, self._seen = 0, Counter[str]()
        self._held = 0

    async def hold(self, address: str, now: float) -> None:
        """Return at once, or when the time of a refusal `now`, in seconds, is over."""
        if seconds := self.seconds(address, now, self._held):
            self._held += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                self._held -= 1

    def seconds(self, address: str, now: float, held: int) -> float:
        """For a refusal `now`, in seconds, while `held` others are being held back."""
        if int(now) != self._second:
            self._second, self._seen = int(now), Counter()
        self._seen[address] += 1
        return self._seconds if self._seen[address] > self._at_once and held < self._most else 0.0
