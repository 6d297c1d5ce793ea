"""JSON of any size without stalling a stream: beside the event loop if it is long, and in pieces, because the encoder
keeps the interpreter's lock until it has done.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_SLICE = 64  # entries of a list that are encoded in one go
_SHORT = 2000  # parts of a value that take no more than a few milliseconds


async def beside(parts: int, work: Callable[[], T]) -> T:
    """The result of `work`, which makes a value of about so many numbers and texts."""
    return work() if parts <= _SHORT else await asyncio.to_thread(work)


def rendered(value: Any, ascii_only: bool = False, depth: int = 0) -> str:
    """The value as JSON. Objects are taken apart, as are lists of them near the top; other lists are cut into slices.
    ValueError if a number is none that JSON has.
    """

    def whole(part: Any) -> str:
        return json.dumps(part, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"))

    if isinstance(value, dict):
        parts = (f"{whole(name)}:{rendered(part, ascii_only, depth + 1)}" for name, part in value.items())
        return f"{{{','.join(parts)}}}"
    if not isinstance(value, list) or not value:
        return whole(value)
    if depth < 2 and isinstance(value[0], dict):
        return f"[{','.join(rendered(part, ascii_only, depth + 1) for part in value)}]"
    return f"[{','.join(whole(value[i : i + _SLICE])[1:-1] for i in range(0, len(value), _SLICE))}]"
