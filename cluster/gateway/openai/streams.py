"""Server-sent events: what comes is sent as it comes, silence is broken by comments, and a client that goes is noticed.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cluster.engine.generation import Generation
from cluster.engine.text import Piece
from cluster.gateway.openai.rendering import rendered

T = TypeVar("T")
Pieces = list[tuple[int, Piece]]
DONE = "data: [DONE]\n\n"
KEEP_ALIVE = ": keep-alive\n\n"  # never ": ping", which a client takes for the stream's end
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(value: object, name: str = "") -> str:
    """One line of data, ASCII only: U+2028 would end a line for some clients."""
    line = f"data: {rendered(value, ascii_only=True)}\n\n"
    return f"event: {name}\n{line}" if name else line


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
    sources = [generation.pieces() for generation in generations]
    # One batch of each at a time: what is not read stays with the generations, which have a bound for it.
    coming = {asyncio.ensure_future(anext(source)): place for place, source in enumerate(sources)}
    try:
        while coming:
            for task in (await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED))[0]:
                place = coming.pop(task)
                try:
                    pieces = task.result()
                except StopAsyncIteration:
                    continue
                coming[asyncio.ensure_future(anext(sources[place]))] = place
                yield place, pieces
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)


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
