"""Which of the actors that are being started are ready, and which have failed. Times are in seconds."""

from collections import Counter
from collections.abc import Collection, Mapping

from actors.vitals import Pulse
from cluster.policy.replicas.lifecycle import MOST_FAILURES
from model.batch import LoadProgress

AWAY_SECONDS = 60.0  # until one that cannot be reached is given up; a restart takes a few
_NOTHING_YET = LoadProgress(0, 0)


class Readiness:
    """Start-up state by actor name. A process that dies while it loads may restart, but not for ever."""

    def __init__(self, names: Collection[str], dispensable: Mapping[str, Collection[str]] | None = None) -> None:
        """`dispensable` maps an actor to its alternatives: it may fail while one of them has not."""
        self.names = list(names)  # without those that failed
        self.pulses: dict[str, Pulse] = {}
        self.failed: dict[str, str] = {}  # and why
        self._dispensable = dispensable or {}
        self._incarnations: dict[str, str] = {}
        self._ends = Counter[str]()
        self._away: dict[str, float] = {}  # since when

    @property
    def waiting(self) -> list[str]:
        return [name for name, progress in self.progress().items() if not progress.ready]

    def progress(self) -> dict[str, LoadProgress]:
        return {name: self.pulses[name].progress if name in self.pulses else _NOTHING_YET for name in self.names}

    def note(
        self, pulses: Mapping[str, Pulse], lost: Mapping[str, str], away: Mapping[str, str], now: float
    ) -> dict[str, str]:
        """Take in what the actors answered, or why they could not. Returns why those failed that are indispensable."""
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
        return {name: why for name, why in failed.items() if not set(self._dispensable.get(name, ())) & set(self.names)}
