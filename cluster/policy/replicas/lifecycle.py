"""The life of one replica.

STARTING -> READY -> RETIRING -> gone         a READY one whose process ended: UNREACHABLE -> STARTING -> READY,
or LOST when Ray says that it will not come back
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from actors.replica import ReplicaId
from actors.vitals import Pulse

MOST_FAILURES = 3  # in a row


class State(StrEnum):
    """A retired replica is RETIRING until it has answered its last call."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "draining"  # the word of the protos and the metrics
    UNREACHABLE = "unreachable"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """Seconds for a replica to find a node, to load, to answer its last calls; `needs` is what Ray reserves for it."""

    placement_timeout: float = math.inf
    start_timeout: float = math.inf
    retire_timeout: float = 30.0
    needs: Mapping[str, float] = field(default_factory=dict)


def needs_words(needs: Mapping[str, float]) -> str:
    """The amounts that Ray reserves, for an operator."""
    amounts = {n: f"{amount / 1e9:.1f} GB" if n == "memory" else f"{amount:g}" for n, amount in needs.items()}
    return ", ".join(f"{name} {amount}" for name, amount in amounts.items()) or "nothing"


@dataclass(frozen=True, slots=True)
class Member:
    """The methods return what it becomes. Times are on the controller's clock; `since` is when it entered its state.
    It has `served` once it has joined. `failures` count ended processes and failed warm-up calls since it last joined.
    """

    id: ReplicaId
    state: State
    since: float
    node_id: str = ""
    pid: int = 0
    incarnation: str = ""
    restarts: int = 0
    failures: int = 0
    served: bool = False
    loaded: bool = False  # its weights are there: it may join
    away: str = ""  # why it cannot be asked: its process is about to start, or the network fails
    why: str = ""  # it is lost, or failed last

    def answered(self, pulse: Pulse, now: float) -> "Member":
        """A process other than the one before has to load and join again, and counts as a restart."""
        fresh = pulse.incarnation != self.incarnation
        member = replace(self, pid=pulse.pid, node_id=pulse.node_id, loaded=pulse.progress.ready, away="")
        if fresh and self.incarnation:
            member = replace(member, restarts=self.restarts + 1)
            if self.state is State.STARTING:
                member = member._failed("its process ended")
        member = replace(member, incarnation=pulse.incarnation)
        if fresh and self.state is not State.RETIRING:
            return member._entered(State.STARTING, now)
        if self.state is State.UNREACHABLE:
            return member._entered(State.READY, now)  # the network had failed, not the process
        return member

    def ended(self, now: float) -> "Member":
        """Its process has ended, or is cut off; Ray may restart it."""
        return self if self.state is State.RETIRING else self._entered(State.UNREACHABLE, now)

    def lost(self, why: str, now: float) -> "Member":
        """It will not come back by itself; the replica that is started in its place counts as a restart."""
        if self.state in (State.RETIRING, State.LOST):
            return self
        failures = self.failures + (self.state is State.STARTING)
        member = replace(self, why=why, restarts=self.restarts + 1, failures=failures)
        return member._entered(State.LOST, now)

    def successor(self, node_id: str, now: float) -> "Member":
        """The one that is started in its place: what it has been through is remembered."""
        start = Member(self.id, State.STARTING, now, node_id)
        return replace(start, restarts=self.restarts, failures=self.failures, served=self.served, why=self.why)

    def unanswered(self, why: str) -> "Member":
        """It cannot be asked just now, which it may survive."""
        return replace(self, away=why)

    def cold(self) -> "Member":
        return self._failed("it did not answer a warm-up call") if self.state is State.STARTING else self

    def joined(self, now: float) -> "Member":
        if self.state is not State.STARTING:
            return self
        return replace(self, served=True, failures=0, why="")._entered(State.READY, now)

    def retired(self, now: float) -> "Member":
        return self._entered(State.RETIRING, now)

    def overdue(self, options: ReplicaOptions, now: float) -> str:
        """Why to give it up now, or "". An UNREACHABLE replica that is silent may be slow, and is left alone."""
        waited = now - self.since
        if self.failures >= MOST_FAILURES and self.state is not State.RETIRING:
            return f"it failed {self.failures} times before it was ready: {self.why}"
        if self.state is State.STARTING and not self.incarnation and waited > options.placement_timeout:
            if self.away:
                return f"its process did not start within {options.placement_timeout:g} s: {self.away}"
            needs = needs_words(options.needs)
            return f"no node took it within {options.placement_timeout:g} s (it needs: {needs}; see `ray status`)"
        if self.state is State.STARTING and self.incarnation and not self.loaded and waited > options.start_timeout:
            return f"its weights were not loaded within {options.start_timeout:g} s"
        if self.state is State.UNREACHABLE and self.away and waited > options.start_timeout:
            return f"it did not come back within {options.start_timeout:g} s: {self.away}"
        return ""

    def _failed(self, why: str) -> "Member":
        return replace(self, failures=self.failures + 1, why=why)

    def _entered(self, state: State, now: float) -> "Member":
        return self if self.state is state else replace(self, state=state, since=now)
