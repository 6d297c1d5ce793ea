"""The pool for work on requests before they are queued: tokenizing, compiling a schema, detokenizing.

Such work takes up to seconds of a core, during which no stream may stall. It runs beside the event loop, one piece at a
time, so that the engine keeps its share. Small work, large work and schemas have a lane each, so that none waits behind
another kind; large work runs in a process of its own. Tenants take turns, and waiting work is bounded in number, bytes
and time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.gateway.errors import ApiError, exhausted

T = TypeVar("T")

SMALL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """At most `waiting` pieces of one tenant, `waiting_bytes` of all tenants, and `seconds` until a piece begins."""

    waiting: int = 16
    waiting_bytes: int = 64 << 20
    seconds: float = 20.0


@dataclass(eq=False, slots=True)
class _Work:
    size: int
    work: Callable[..., Any]
    done: "asyncio.Future[Any]"
    begun: bool = False


class Turns:
    """Waiting work by tenant; tenants take turns. It holds and orders work, and runs none."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[_Work]] = {}  # in the order of their turns; never an empty one
        self.bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def waiting(self, tenant: str) -> int:
        """The number of a tenant's waiting pieces."""
        return len(self._queues.get(tenant, ()))

    def add(self, tenant: str, work: _Work) -> None:
        """Append to the tenant's own queue."""
        self._queues.setdefault(tenant, deque()).append(work)
        self.bytes += work.size

    def pop(self) -> _Work:
        """Take the oldest piece of the tenant whose turn it is; the tenant's next turn is after the others'."""
        tenant, queue = next(iter(self._queues.items()))
        work = queue.popleft()
        del self._queues[tenant]
        if queue:
            self._queues[tenant] = queue
        self.bytes -= work.size
        return work

    def remove(self, tenant: str, work: _Work) -> None:
        """Take a piece out of turn."""
        queue = self._queues[tenant]
        queue.remove(work)
        self.bytes -= work.size
        if not queue:
            del self._queues[tenant]

    def check(self) -> None:
        """Assert that the bytes are those of the waiting work, and that no tenant has an empty queue."""
        assert self.bytes == sum(work.size for queue in self._queues.values() for work in queue)
        assert all(self._queues.values())


class _Lane:
    """One thread, the function that it applies to each piece of work, and the work that waits for it."""

    def __init__(self, name: str, do: Callable[[Any], Any]) -> None:
        self.turns, self.running, self.do = Turns(), False, do
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"examination-{name}")


class Examination:
    """The pool; all calls are made on one event loop."""

    def __init__(self, here: Callable[[Any], Any], apart: Callable[[Any], Any], bounds: Bounds | None = None) -> None:
        """`here` does work in the thread that calls it; `apart` has large work done in another process."""
        self._bounds = bounds or Bounds()
        self._small, self._large, self._costly = _Lane("small", here), _Lane("large", apart), _Lane("costly", here)
        self._lanes = (self._small, self._large, self._costly)

    async def run(self, tenant: str, size: int, work: Callable[..., T], costly: bool = False) -> T:
        """The result of `work` on `size` bytes, done in a thread; raises ApiError (EXAMINATION_BUSY) if there is no
        room, or no turn in time.

        `costly` work, such as a schema, may take long though it is small.
        """
        lane = self._large if size > SMALL_BYTES else self._costly if costly else self._small
        waiting_bytes = sum(lane.turns.bytes for lane in self._lanes)
        if lane.turns.waiting(tenant) >= self._bounds.waiting or waiting_bytes + size > self._bounds.waiting_bytes:
            raise _busy(5.0)
        mine = _Work(size, work, asyncio.get_running_loop().create_future())
        lane.turns.add(tenant, mine)
        self._next(lane)
        late = asyncio.get_running_loop().call_later(self._bounds.seconds, self._give_up, mine)
        try:
            result: T = await mine.done
            return result
        finally:
            late.cancel()
            if not mine.begun:
                lane.turns.remove(tenant, mine)

    def close(self) -> None:
        """End each thread after the work that it runs."""
        for lane in self._lanes:
            lane.thread.shutdown(wait=False, cancel_futures=True)

    def check(self) -> None:
        """Assert what must hold at any time; call it on the loop."""
        for lane in self._lanes:
            lane.turns.check()
            assert lane.running or not len(lane.turns), "work waits and nothing runs"

    def _next(self, lane: _Lane) -> None:
        if lane.running or not len(lane.turns):
            return
        work = lane.turns.pop()
        work.begun = lane.running = True
        running = asyncio.get_running_loop().run_in_executor(lane.thread, lane.do, work.work)
        running.add_done_callback(lambda ended: self._ended(lane, work, ended))

    def _ended(self, lane: _Lane, work: _Work, ended: "asyncio.Future[Any]") -> None:
        lane.running = False
        error = None if ended.cancelled() else ended.exception()
        if not work.done.done():  # else the caller has gone
            if ended.cancelled():
                work.done.cancel()
            elif error is not None:
                work.done.set_exception(error)
            else:
                work.done.set_result(ended.result())
        self._next(lane)

    def _give_up(self, work: _Work) -> None:
        if not work.begun and not work.done.done():
            work.done.set_exception(_busy(self._bounds.seconds))


def _busy(retry_seconds: float) -> ApiError:
    text = "too much is being tokenized and compiled at the moment; send the request again later"
    return exhausted("EXAMINATION_BUSY", text, retry_seconds)
