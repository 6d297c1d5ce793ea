"""Who of the actors that are being started is there, who is awaited, and who will not come. Pure: it is told what was
answered, and the time in seconds.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from actors.vitals import Pulse
from cluster.policy.replicas.membership import MOST_FAILURES
from model.batch import LoadProgress

AWAY_SECONDS = 60.0  # until one that cannot be reached is given up; a restart takes a few
_NOTHING_YET = LoadProgress(0, 0)


class RollCall:
    """By name. One that ends while others still load has Ray's restarts, but not for ever."""

    def __init__(self, names: Collection[str], spare: Mapping[str, Collection[str]] | None = None) -> None:
        """A `spare` one is done without if it fails, as long as one of those that are named with it has not."""
        self.names = list(names)
        self.pulses: dict[str, Pulse] = {}
        self.failed: dict[str, str] = {}  # and why
        self._spare = spare or {}
        self._incarnations: dict[str, str] = {}
        self._ends = Counter[str]()
        self._away: dict[str, float] = {}  # since when

    @property
    def waiting(self) -> list[str]:
        """Those without their weights."""
        return [name for name, progress in self.progress().items() if not progress.ready]

    def progress(self) -> dict[str, LoadProgress]:
        """How far each is."""
        return {name: self.pulses[name].progress if name in self.pulses else _NOTHING_YET for name in self.names}

    def note(
        self, pulses: Mapping[str, Pulse], lost: Mapping[str, str], away: Mapping[str, str], now: float
    ) -> dict[str, str]:
        """What those that were asked answered, or why they could not; why who cannot be done without, will not come."""
        failed = dict(lost)
        for name, pulse in pulses.items():
            self._away.pop(name, None)
            self._ends[name] += self._incarnations.get(name, pulse.incarnation) != pulse.incarnation
            self._incarnations[name], self.pulses[name] = pulse.incarnation, pulse
            if pulse.progress.error:
                failed[name] = pulse.progress.error
            elif self._ends[name] >= MOST_FAILURES:
                failed[name] = f"its process ended {self._ends[name]} times before it was ready"
        for name, why in away.items():
            self.pulses.pop(name, None)
            if now - self._away.setdefault(name, now) > AWAY_SECONDS:
                failed[name] = why
        self.failed |= failed
        self.names = [name for name in self.names if name not in failed]
        return {name: why for name, why in failed.items() if not self._can_do_without(name)}

    def _can_do_without(self, name: str) -> bool:
        return any(other in self.names for other in self._spare.get(name, ()))
