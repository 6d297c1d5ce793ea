"""Messages that are being received: bounded in number and time, because a message takes the server's memory from its
first byte on and costs its sender nothing until its last. One that is sent at once feels no bound.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from cluster.gateway.errors import exhausted
from cluster.gateway.turns import Turns

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Upload:
    tenant: str
    connection: str
    began: float  # on the loop's clock, in seconds
    scope: asyncio.Timeout


class Uploads:
    """At most `most` uploads at once, `each` of one tenant, for at most `seconds`, or `patience` while others wait.

    Waiting connections take turns. While any waits, the oldest upload of the connection that holds the most places is
    ended; if the waiting tenant has all the places that it may have, it is one of that tenant's own.
    """

    def __init__(self, most: int, seconds: float, patience: float = 1.0, each: int | None = None) -> None:
        self._most, self._seconds, self._patience = most, seconds, patience
        self._each = each or max(1, most // 4)
        self._open: dict[_Upload, None] = {}  # oldest first
        self._waiting = Turns[tuple[str, str], asyncio.Future[None]]()  # by tenant and connection
        self._held = Counter[str]()  # places by tenant, those of uploads that are about to begin included
        self._pressing: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._held.total()

    async def read(self, tenant: str, connection: str, reading: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `reading`. Raises ApiError (MESSAGE_TOO_SLOW) if that takes too long."""
        if self._waiting.waiting((tenant, connection)) or not self._room_for(tenant):
            await self._turn(tenant, connection)
        else:
            self._held[tenant] += 1
        now = asyncio.get_running_loop().time()
        upload = _Upload(tenant, connection, now, asyncio.timeout_at(now + self._seconds))
        self._open[upload] = None
        self._press()  # connections may have waited since before it began
        try:
            async with upload.scope:
                return await reading()
        except TimeoutError:
            text = "the message did not come in time, or others needed its place; send it whole, and at once"
            raise exhausted("MESSAGE_TOO_SLOW", text, 1.0) from None
        finally:
            del self._open[upload]
            self._give_back(tenant)

    def _room_for(self, tenant: str) -> bool:
        return len(self) < self._most and self._held[tenant] < self._each

    async def _turn(self, tenant: str, connection: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add((tenant, connection), mine)
        self._press()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._waiting.remove((tenant, connection), mine)
            else:  # its turn had just come
                self._give_back(tenant)
            raise

    def _give_back(self, tenant: str) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._admit()

    def _admit(self) -> None:
        """Give free places to the connections whose turn it is."""
        while turn := self._waiting.pop(lambda who: self._room_for(who[0])):
            (tenant, _), first = turn
            if not first.done():  # else it is cancelled, but its task has not run yet
                first.set_result(None)
                self._held[tenant] += 1
        self._press()

    def _press(self) -> None:
        """Have an upload end, if connections wait."""
        if self._pressing is not None or not self._waiting or not self._open:
            return
        full = {tenant for tenant, _ in self._waiting if self._held[tenant] >= self._each}
        blocking = [u for u in self._open if len(self) >= self._most or u.tenant in full]
        if blocking:
            most = Counter(upload.connection for upload in blocking).most_common(1)[0][0]
            oldest = next(upload for upload in blocking if upload.connection == most)
            loop = asyncio.get_running_loop()
            self._pressing = loop.call_at(max(loop.time(), oldest.began + self._patience), self._end, oldest)

    def _end(self, upload: _Upload) -> None:
        self._pressing = None
        if self._waiting and upload in self._open:
            upload.scope.reschedule(asyncio.get_running_loop().time())  # it ends in the loop's next round, and admits
        else:
            self._press()

    def check(self) -> None:
        """Assert what must hold when no upload is under way."""
        assert not self._open and not self._waiting and not self._held
