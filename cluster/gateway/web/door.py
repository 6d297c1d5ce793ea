"""Connections of the HTTP port, and those that keep us waiting: for a request, or to take an answer. When all places
are taken, the one that has kept us waiting longest goes, so that a probe is always heard.
"""

import asyncio
from typing import Protocol

from cluster.observe.refusals import Refusals
from cluster.settings.sections import LimitsSection

_TOO_SLOW, _UNREAD = "HTTP_TOO_SLOW", "HTTP_UNREAD"  # why a connection is waited for, and then ended


class Connection(Protocol):
    """One of them; `client` is its address."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def client(self) -> object: ...

    @property
    def transport(self) -> asyncio.Transport: ...

    def has_read(self) -> bool:
        """Whether its client has taken anything of its answer since the last look."""


class Door:
    """All connections, and those that keep us waiting, longest first, each with the reason and its timer."""

    def __init__(self, limits: LimitsSection, refusals: Refusals) -> None:
        self._seconds = {_TOO_SLOW: limits.http_head_s, _UNREAD: limits.http_unread_s}
        self._most, self._refusals = limits.http_connections, refusals
        self._all: set[Connection] = set()
        self._waited_for: dict[Connection, tuple[str, asyncio.TimerHandle]] = {}
        self._closed = False

    def enter(self, new: Connection) -> None:
        """One more; if that is too many the one that has been waited for longest goes, else the new one."""
        if self._closed:
            new.transport.abort()
            return
        self._all.add(new)
        if len(self._all) > self._most:
            self.refuse(next(iter(self._waited_for), new), "HTTP_TOO_MANY")

    def leave(self, gone: Connection) -> None:
        """It has ended, or is another one from now on."""
        self._all.discard(gone)
        self._waits(gone, "")

    def awaits(self, who: Connection, unread: bool, owing: bool) -> None:
        """Whether it leaves an answer `unread`, or is `owing` a request. Time is measured from the first word of a
        wait, and is not set back during it.
        """
        self._waits(who, _UNREAD if unread else _TOO_SLOW if owing else "")

    def refuse(self, who: Connection, reason: str) -> None:
        """End it, and count why."""
        self._refusals.note(reason, str(who.client))
        self.leave(who)
        who.transport.abort()

    def close(self) -> None:
        """End all of them, and those that come yet."""
        self._closed = True
        for who in list(self._all):
            self.leave(who)
            who.transport.abort()

    def _waits(self, who: Connection, reason: str) -> None:
        before, timer = self._waited_for.get(who, ("", None))
        if reason == before:
            return
        if timer is not None:
            timer.cancel()
            del self._waited_for[who]
        if reason and who in self._all:
            timer = who.loop.call_later(self._seconds[reason], self._end, who, reason)
            self._waited_for[who] = reason, timer

    def _end(self, who: Connection, reason: str) -> None:
        if reason == _UNREAD and who.has_read():
            self._waits(who, "")
            self._waits(who, reason)
        else:
            self.refuse(who, reason)
