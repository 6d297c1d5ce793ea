"""Returns memory to the system after a flood of requests: small blocks that are freed would stay in the heap."""

import asyncio
import ctypes

import psutil

_SECONDS = 5.0
_WORTH = 64 << 20  # bytes above what was held after the last time


class Trimming:
    """Decides when trimming is worth it: the memory held has grown, and grows no longer."""

    def __init__(self, held: int) -> None:
        self._floor = self._last = held

    def due(self, held: int) -> bool:
        """Whether to trim now; called every few seconds with the bytes held."""
        growing, self._last = held > self._last, held
        return held > self._floor + _WORTH and not growing

    def done(self, held: int) -> None:
        self._floor = self._last = held


async def trim_for_ever() -> None:
    """Trim when it is due, until cancelled."""
    trim, process = ctypes.CDLL(None).malloc_trim, psutil.Process()
    trimming = Trimming(process.memory_info().rss)
    while True:
        await asyncio.sleep(_SECONDS)
        if trimming.due(process.memory_info().rss):
            await asyncio.to_thread(trim, 0)
            trimming.done(process.memory_info().rss)
