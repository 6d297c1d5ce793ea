"""The pool for work on requests before they are queued: seconds of a core, during which no stream may stall.

It runs beside the event loop, one piece at a time, so that the engine keeps its share. Small work, large work and
schemas have a lane each, so that none waits behind another kind; large work runs in a process of its own.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.gateway.errors import ApiError, exhausted
from cluster.gateway.turns import Turns
from cluster.settings.sections import LimitsSection

T = TypeVar("T")

SMALL_BYTES = 64 << 10


@dataclass(eq=False, slots=True)
class _Work:
    size: int
    work: Callable[..., Any]
    begun: "asyncio.Future[asyncio.Future[Any]]"  # its result is the work's own future


class _Lane:
    """One thread, the function that it applies to each piece of work, and the work that waits for it, by tenant."""

    def __init__(self, name: str, do: Callable[[Any], Any]) -> None:
        self.turns, self.running, self.do = Turns[str, _Work](), False, do
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"examination-{name}")


class Examination:
    """The pool; all calls are made on one event loop."""

    def __init__(self, here: Callable[[Any], Any], apart: Callable[[Any], Any], limits: LimitsSection) -> None:
        """`here` does work in the thread that calls it; `apart` has large work done in another process."""
        self._limits, self._waiting_bytes = limits, 0
        self._small, self._large, self._costly = _Lane("small", here), _Lane("large", apart), _Lane("costly", here)
        self._lanes = (self._small, self._large, self._costly)

    async def run(self, tenant: str, size: int, work: Callable[..., T], costly: bool = False) -> T:
        """Do a tenant's work for a request of `size` bytes; `costly` work, such as a schema, may take long though it is
        small. Raises ApiError (EXAMINATION_BUSY) if there is no room, or no turn in time.
        """
        lane = self._large if size > SMALL_BYTES else self._costly if costly else self._small
        too_many = lane.turns.waiting(tenant) >= self._limits.examinations
        if too_many or self._waiting_bytes + size > self._limits.examination_bytes:
            raise _busy(5.0)
        mine = _Work(size, work, asyncio.get_running_loop().create_future())
        lane.turns.add(tenant, mine)
        self._waiting_bytes += size
        self._next(lane)
        try:
            await asyncio.wait([mine.begun], timeout=self._limits.examination_s)
        finally:
            if lane.turns.remove(tenant, mine):
                self._waiting_bytes -= size
        if not mine.begun.done():
            raise _busy(self._limits.examination_s)
        result: T = await asyncio.shield(mine.begun.result())  # a thread finishes what it has begun
        return result

    def close(self) -> None:
        """End each thread after the work that it runs."""
        for lane in self._lanes:
            lane.thread.shutdown(wait=False, cancel_futures=True)

    def check(self) -> None:
        """Assert what must hold at any time; call it on the loop."""
        for lane in self._lanes:
            lane.turns.check()
            assert lane.running or not lane.turns, "work waits and nothing runs"
        assert self._waiting_bytes == sum(work.size for lane in self._lanes for work in lane.turns.items())

    def _next(self, lane: _Lane) -> None:
        if lane.running or not (turn := lane.turns.pop()):
            return
        _, work = turn
        self._waiting_bytes -= work.size
        lane.running = True
        running = asyncio.get_running_loop().run_in_executor(lane.thread, lane.do, work.work)

        def ended(_: object) -> None:
            lane.running = False
            if not running.cancelled():
                running.exception()  # or asyncio complains where the caller has gone
            self._next(lane)

        running.add_done_callback(ended)
        work.begun.set_result(running)


def _busy(retry_seconds: float) -> ApiError:
    text = "too much is being tokenized and compiled at the moment; send the request again later"
    return exhausted("EXAMINATION_BUSY", text, retry_seconds)
