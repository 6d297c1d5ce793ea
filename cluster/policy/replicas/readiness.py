"""Which of the actors that are being started are ready, and which have failed. Times are in seconds."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from actors.vitals import Pulse
from cluster.policy.replicas.lifecycle import MOST_FAILURES
from cluster.policy.replicas.start_plan import Actor
from model.batch import LoadProgress

AWAY_SECONDS = 60.0  # until one that cannot be reached is given up; a restart takes a few


class Readiness:
    """Start-up state by actor. A process that dies while it loads may restart, but not for ever."""

    def __init__(self, actors: Collection[Actor], dispensable: Mapping[Any, Collection[Actor]] | None = None) -> None:
        """`dispensable` maps an actor to its alternatives: it may fail while one of them has not."""
        self.actors = list(actors)  # without those that failed
        self.pulses: dict[Actor, Pulse] = {}
        self.failed: dict[Actor, str] = {}  # and why
        self._dispensable = dispensable or {}
        self._incarnations: dict[Actor, str] = {}
        self._ends = Counter[Actor]()
        self._away: dict[Actor, float] = {}  # since when

    @property
    def waiting(self) -> list[Actor]:
        return [actor for actor, progress in self.progress().items() if not progress.ready]

    def progress(self) -> dict[Actor, LoadProgress]:
        return {a: self.pulses[a].progress if a in self.pulses else LoadProgress(0, 0) for a in self.actors}

    def note(
        self, pulses: Mapping[Actor, Pulse], lost: Mapping[Actor, str], away: Mapping[Actor, str], now: float
    ) -> dict[Actor, str]:
        """Take in what the actors answered, or why they could not. Returns why those failed that are indispensable."""
        failed = dict(lost)
        for actor, pulse in pulses.items():
            self._away.pop(actor, None)
            self._ends[actor] += self._incarnations.get(actor, pulse.incarnation) != pulse.incarnation
            self._incarnations[actor], self.pulses[actor] = pulse.incarnation, pulse
            if pulse.progress.error:
                failed[actor] = pulse.progress.error
            elif self._ends[actor] >= MOST_FAILURES:
                failed[actor] = f"its process ended {self._ends[actor]} times before it was ready"
        for actor, why in away.items():
            self.pulses.pop(actor, None)
            if now - self._away.setdefault(actor, now) > AWAY_SECONDS:
                failed[actor] = why
        self.failed |= failed
        self.actors = [actor for actor in self.actors if actor not in failed]
        return {a: why for a, why in failed.items() if not set(self._dispensable.get(a, ())) & set(self.actors)}
