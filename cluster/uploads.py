"""Messages that are on their way in: so many at once, each for so long, and a slow one makes room for others.

A message takes memory from its first byte on and costs its sender nothing until its last. Whoever sends at once is done
before anybody looks; whoever lets the server wait is the one that goes when others want in.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class UploadTooSlow(Exception):
    """The message did not come within its time, or others needed its place."""


@dataclass(eq=False, slots=True)
class _Upload:
    who: str
    began: float  # on the loop's clock, in seconds
    scope: asyncio.Timeout


class Uploads:
    """At most `most` readings at once, of at most `seconds` each; while others wait, of at most `patience` seconds.

    Connections that wait take turns. Who goes is the oldest of the connection that holds the most places.
    """

    def __init__(self, most: int, seconds: float, patience: float = 0.5) -> None:
        self._most, self._seconds, self._patience = most, seconds, patience
        self._open: dict[_Upload, None] = {}  # oldest first
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by connection, in the order of their turns
        self._promised = 0  # places of those that are about to begin
        self._pressing: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open) + self._promised

    async def read(self, who: str, reading: Callable[[], Awaitable[T]]) -> T:
        """What `reading` gives; UploadTooSlow if it took too long. `who` is the connection."""
        if self._waiting or len(self) >= self._most:
            await self._turn(who)
        now = asyncio.get_running_loop().time()
        upload = _Upload(who, now, asyncio.timeout_at(now + self._seconds))
        self._open[upload] = None
        try:
            async with upload.scope:
                return await reading()
        except TimeoutError:
            raise UploadTooSlow from None
        finally:
            del self._open[upload]
            self._admit()

    async def _turn(self, who: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(mine)
        self._press()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._forget(who, mine)
            else:  # its turn had just come
                self._promised -= 1
                self._admit()
            raise
        self._promised -= 1

    def _forget(self, who: str, mine: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(who, deque())
        if mine in queue:
            queue.remove(mine)
            if not queue:
                del self._waiting[who]

    def _admit(self) -> None:
        """Give free places to those whose turn it is."""
        while self._waiting and len(self) < self._most:
            who, queue = next(iter(self._waiting.items()))
            del self._waiting[who]
            first = queue.popleft()
            if not first.done():  # else it is cancelled, and has not noticed yet
                first.set_result(None)
                self._promised += 1
            if queue:
                self._waiting[who] = queue
        self._press()

    def _press(self) -> None:
        """See to it that whoever waits does not wait for one that never ends."""
        if self._pressing is not None or not self._waiting or not self._open:
            return
        held = Counter(upload.who for upload in self._open)
        who = max(held, key=held.__getitem__)
        oldest = next(upload for upload in self._open if upload.who == who)
        loop = asyncio.get_running_loop()
        self._pressing = loop.call_at(max(loop.time(), oldest.began + self._patience), self._end, oldest)

    def _end(self, upload: _Upload) -> None:
        self._pressing = None
        if self._waiting and upload in self._open:
            upload.scope.reschedule(asyncio.get_running_loop().time())  # it leaves in the loop's next round, and admits
        else:
            self._press()

    def check(self) -> None:
        """What must hold when nothing is under way."""
        assert not len(self) and not self._waiting
