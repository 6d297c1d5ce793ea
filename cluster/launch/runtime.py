"""Where actors run: a runtime brings a deployment up, which a server drives and lets go of. No Ray, no torch."""

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from actors.replica import ReplicaId
from actors.seams import ClusterMemory, ClusterOps, HeadHandle
from actors.vitals import Pulse
from model.batch import LoadProgress

ProgressReport = Callable[[str, Mapping[str, LoadProgress]], None]  # (phase, progress by actor)


class LaunchFailed(Exception):
    """The start failed; the text is for the operator."""


class LaunchStopped(Exception):
    """The start was interrupted."""


class Deployment(Protocol):
    """Running actors: the head to drive, what changes the experts' replicas, and those that ran when it came up. Where
    replicas are fixed, `ops` is None and `pulses` is empty.
    """

    @property
    def head(self) -> HeadHandle: ...

    @property
    def ops(self) -> ClusterOps | None: ...

    @property
    def memory(self) -> ClusterMemory | None:
        """A memory that outlives this process, where there is one."""

    @property
    def pulses(self) -> Mapping[ReplicaId, Pulse]: ...

    def broken(self) -> str:
        """Why nothing will bring the actors back, or ""."""

    def close(self, keep: bool) -> None:
        """Let go of the actors: they end, unless `keep`, or another server needs them."""


class Runtime(Protocol):
    """A place for actors. `start` is called once at most, `abandon` from any thread."""

    def await_turn(self, stop: threading.Event, obstacle: Callable[[], str]) -> None:
        """Stand by while another server drives the actors there, or there is an `obstacle`. Call it before `start`;
        raises LaunchFailed, or LaunchStopped after `stop`.
        """

    def start(self, stop: threading.Event) -> Deployment:
        """Start or adopt all actors and wait for their weights; raises LaunchFailed, or LaunchStopped after `stop`."""

    def abandon(self) -> None:
        """Undo what was begun, if `start` was never called or did not return."""
