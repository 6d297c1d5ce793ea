"""Server-sent events: what comes is sent as it comes, silence is broken by comments, and a client that goes is noticed.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cluster.engine.generation import Generation
from cluster.engine.text import Piece

T = TypeVar("T")
Pieces = list[tuple[int, Piece]]
DONE = "data: [DONE]\n\n"
KEEP_ALIVE = ": keep-alive\n\n"  # never ": ping", which a client takes for the stream's end
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(value: object) -> str:
    """One line, ASCII only: U+2028 would end a line for some clients."""
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


class Events(StreamingResponse):
    """It closes what it was given when it ends, however that comes, even if it never began."""

    def __init__(self, events: AsyncIterator[str], held: contextlib.AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(events, headers=_HEADERS | headers, media_type="text/event-stream")
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def kept_alive(events: AsyncGenerator[str, None], seconds: float) -> AsyncIterator[str]:
    """The events, and a comment whenever so many seconds passed without one."""
    coming: asyncio.Task[str] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            if not (await asyncio.wait({coming}, timeout=seconds))[0]:
                yield KEEP_ALIVE
                continue
            try:
                come = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield come
    finally:
        if coming is not None:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
        await events.aclose()


async def merged(generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, Pieces], None]:
    """The pieces of all as they come, each with the place of its generation. Raises the first failure of any."""
    if len(generations) == 1:
        async for pieces in generations[0].pieces():
            yield 0, pieces
        return
    # As many as there are generations: what is not read stays with them, and they have a bound for it.
    come: asyncio.Queue[tuple[int, Pieces | None]] = asyncio.Queue(len(generations))

    async def bring(place: int) -> None:
        try:
            async for pieces in generations[place].pieces():
                await come.put((place, pieces))
        finally:
            await come.put((place, None))

    bringing = [asyncio.ensure_future(bring(place)) for place in range(len(generations))]
    try:
        left = len(generations)
        while left:
            place, some = await come.get()
            if some is None:
                await bringing[place]  # raises what has ended it
                left -= 1
            else:
                yield place, some
    finally:
        for task in bringing:
            task.cancel()
        await asyncio.gather(*bringing, return_exceptions=True)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None if the client went first, which ends the work."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
