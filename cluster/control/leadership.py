"""One server leads a cluster, others stand by. The record of it lies in the cluster's memory.

A second server that leads by mistake does no harm, because the head serves the engine that adopted it last and refuses
the plans of others.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from actors.seams import ClusterMemory
from cluster.control.ticker import Ticker
from cluster.observe.said_once import SaidOnce
from cluster.policy.succession import Lead, Succession, read_lead

log = logging.getLogger("eightwinds.leadership")

BEAT_SECONDS = 0.5
_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0
_LEAD, _TERM, _STANDBY = "lead", "term/", "standby/"


class CannotLead(Exception):
    """This process cannot lead, though no other does, and the reason does not pass by itself."""


class Leadership:
    """`wait` returns once this process leads. From then on it gives signs of life until `end`."""

    def __init__(self, memory: ClusterMemory, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory, self._place, self._clock = memory, place, clock
        self._mine: Lead | None = None
        self._successor: Lead | None = None
        self._said = SaidOnce(log)
        self._ticker = Ticker("leadership", self.beat, lambda: BEAT_SECONDS)

    def wait(self, stop: threading.Event, obstacle: Callable[[], str]) -> bool:
        """Stand by until no other server leads, and there is no `obstacle` to leading; False after `stop`. A memory
        that is away for a while is waited for. Raises CannotLead if there is an obstacle and nobody led.
        """
        succession, own, said = Succession(_PATIENCE_SECONDS), _STANDBY + self._memory.job, ""
        while not stop.is_set():
            try:
                if not (why := self._look(succession, obstacle, first=not said)):
                    self._memory.forget(own)
                    self._ticker.start()
                    return True
                if why != said:
                    self._memory.write(own, b"1")
                    log.info("standing by: %s", why)
                    said = why
            except CannotLead:
                raise
            except Exception as error:  # of whatever kind the memory raises when it is away
                self._said.warn(self._clock(), "the cluster cannot be asked who leads", detail=error)
            stop.wait(_LOOK_SECONDS)
        with contextlib.suppress(Exception):  # as above; the end of this process tells the same
            self._memory.forget(own)
        return False

    def _look(self, succession: Succession, obstacle: Callable[[], str], first: bool) -> str:
        """Lead if it can be; else why not. At the `first` look an obstacle is no server's that ends just now."""
        lead = read_lead(self._memory.read(_LEAD))
        ended = lead is not None and not lead.over and self._memory.ended(lead.job)
        if lead is not None and not succession.is_open(lead, ended, self._clock()):
            return f"{lead.place} leads"
        if why := obstacle():
            if first and (lead is None or lead.over):
                raise CannotLead(why)
            return why
        return "" if self._claim(lead) else "another server was faster"

    def beat(self) -> None:
        """Give a sign of life, unless another server leads by now."""
        if self._mine is None:
            return
        try:
            if not self._lost():
                self._mine = replace(self._mine, beat=self._mine.beat + 1)
                self._memory.write(_LEAD, self._mine.to_bytes())
        except Exception as error:  # as above
            self._said.warn(self._clock(), "the cluster cannot be told that this server lives", detail=error)

    @property
    def successor(self) -> str:
        """Where the server is that leads instead of this one, or "". As of the last beat."""
        return self._successor.place if self._successor else ""

    def is_awaited(self) -> bool:
        """Whether another server leads by now or stands by, which needs the actors. True also if it is not known."""
        try:
            jobs = [key.removeprefix(_STANDBY) for key in self._memory.keys(_STANDBY)]
            return self._lost() or any(job != self._memory.job and not self._memory.ended(job) for job in jobs)
        except Exception as error:  # of whatever kind the memory raises when it is away
            log.warning("the actors stay, because the cluster cannot be asked who needs them: %s", error)
            return True

    def end(self) -> None:
        """Let go, so that the next one need not wait."""
        self._ticker.stop()
        try:
            if self._mine is not None and not self._lost():
                self._memory.write(_LEAD, replace(self._mine, over=True).to_bytes())
        except Exception as error:  # as above; the next one waits until this one gives no sign any more
            log.warning("the cluster was not told that this server ends: %s", error)
        self._mine = None

    def _lost(self) -> bool:
        assert self._mine is not None, "it leads"
        lead = read_lead(self._memory.read(_LEAD))
        if lead is not None and lead.term > self._mine.term:
            self._successor = lead
        return self._successor is not None

    def _claim(self, before: Lead | None) -> bool:
        """Take the next term, unless another server does; one that ended right after it had taken a term is passed."""
        term, job = before.term if before else 0, self._memory.job
        while True:
            term += 1
            if self._memory.write_first(f"{_TERM}{term}", job.encode()):
                break
            holder = (self._memory.read(f"{_TERM}{term}") or b"").decode()
            if holder == job:  # an attempt before, of which the end was not heard
                break
            if not holder or not self._memory.ended(holder):
                return False
        self._mine = Lead(term, job, self._place)
        self._memory.write(_LEAD, self._mine.to_bytes())
        for key in self._memory.keys(_TERM):
            if int(key.removeprefix(_TERM)) < term:
                self._memory.forget(key)
        return True
