"""Gives memory that a flood has left behind back to the system; small blocks that are freed stay in the heap else."""

import asyncio
import ctypes
from collections.abc import Callable

import psutil

_SECONDS = 5.0
_WORTH = 64 << 20  # bytes above what was held after the last time


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


class Trimming:
    """When it is worth it: what is held has grown, and grows no longer. Pure; it is told what is held."""

    def __init__(self, held: int) -> None:
        self._floor = self._last = held

    def due(self, held: int) -> bool:
        """Asked every few seconds."""
        growing, self._last = held > self._last, held
        return held > self._floor + _WORTH and not growing

    def done(self, held: int) -> None:
        """What is left is in use."""
        self._floor = self._last = held


async def trim_for_ever(held: Callable[[], int] = resident) -> None:
    """For as long as the server runs."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # a C library other than glibc
        return
    trimming = Trimming(held())
    while True:
        await asyncio.sleep(_SECONDS)
        if trimming.due(held()):
            await asyncio.to_thread(trim, 0)
            trimming.done(held())
