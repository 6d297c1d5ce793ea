"""The HTTP port: /healthz (the process lives), /readyz (it answers requests), /metrics (Prometheus).

A request has a time to come whole, and an answer one in which none of it is taken. When all connections are taken, the
one that has kept us waiting longest goes, so that a probe is always heard.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from cluster.observe.refusals import Refusals
from cluster.settings.config import LimitsSection

_KEEP_ALIVE_SECONDS = 5
_MOST_EARLY_BYTES = 64 << 10  # of a next request that are kept while an answer is made
_TOO_SLOW, _UNREAD = "HTTP_TOO_SLOW", "HTTP_UNREAD"  # why a connection is waited for, and then ended
_BACKLOG = 64  # asyncio tries as many at once, and says of each if there is no file descriptor left


def application(
    ready: Callable[[], bool],
    metrics: Callable[[], Awaitable[bytes]],
    more: Sequence[Route] = (),
    unknown: Callable[[Request, Exception], Awaitable[Response]] | None = None,
    origins: Sequence[str] = (),
) -> Starlette:
    """Probes, metrics and `more`; `unknown` answers for paths and methods that there are not. Pages of the `origins`
    may ask from a browser; what they ask before, without a token, is answered.
    """

    async def healthz(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ready\n") if ready() else PlainTextResponse("not ready\n", status_code=503)

    async def show_metrics(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    paths = {"/healthz": healthz, "/readyz": readyz, "/metrics": show_metrics}
    routes = [*(Route(path, endpoint) for path, endpoint in paths.items()), *more]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after", "retry-after-ms"],
    )
    handlers = {HTTPException: unknown} if unknown else None
    app = Starlette(routes=routes, middleware=[cors] if origins else [], exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


class _Door:
    """All connections, and those that keep us waiting, longest first, each with the reason and its timer."""

    def __init__(self, limits: LimitsSection, refusals: Refusals) -> None:
        self._seconds = {_TOO_SLOW: limits.http_head_s, _UNREAD: limits.http_unread_s}
        self._most, self._refusals = limits.http_connections, refusals
        self._all: set[_Protocol] = set()
        self._waited_for: dict[_Protocol, tuple[str, asyncio.TimerHandle]] = {}

    def enter(self, new: "_Protocol") -> None:
        """One more; if that is too many the one that has been waited for longest goes, else the new one."""
        self._all.add(new)
        if len(self._all) > self._most:
            self._put_out(next(iter(self._waited_for), new), "HTTP_TOO_MANY")

    def leave(self, gone: "_Protocol") -> None:
        self._all.discard(gone)
        self.waits(gone, "")

    def waits(self, who: "_Protocol", reason: str) -> None:
        """Why it is waited for, "" if it is not. Its timer begins with the wait, and is not set back during it."""
        before, timer = self._waited_for.get(who, ("", None))
        if reason == before:
            return
        if timer is not None:
            timer.cancel()
            del self._waited_for[who]
        if reason and who in self._all:
            timer = who.loop.call_later(self._seconds[reason], self._end, who, reason)
            self._waited_for[who] = reason, timer

    def _end(self, who: "_Protocol", reason: str) -> None:
        if reason == _UNREAD and who.has_read():
            self.waits(who, "")
            self.waits(who, reason)
        else:
            self._put_out(who, reason)

    def _put_out(self, who: "_Protocol", reason: str) -> None:
        self._refusals.note(reason, str(who.client))
        self.leave(who)
        who.transport.abort()


class _Protocol(H11Protocol):
    """uvicorn's, which tells the door what it waits for, and sees a client leave in the middle of its answer."""

    def __init__(self, door: _Door, **given: Any) -> None:
        super().__init__(**given)
        self._door, self._unread = door, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that `pause_writing` tells of every byte that is not taken
        self._door.enter(self)
        self._tell_door()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # h11 stops at a byte of the next request, and uvicorn reads no further, which would hide the client's end.
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) <= _MOST_EARLY_BYTES:
            self.flow.resume_reading()
        self._tell_door()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which takes up a request that has come meanwhile, perhaps half of it
        self._tell_door()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._tell_door()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._tell_door()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        super().connection_lost(exc)

    def has_read(self) -> bool:
        """Whether its client has taken anything of its answer since the last look."""
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        return self._unread < before

    def _tell_door(self) -> None:
        owing = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        self._door.waits(self, _UNREAD if self.flow.write_paused else _TOO_SLOW if owing else "")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`, which drains first."""
        yield


class HttpServer:
    def __init__(self, app: Starlette, limits: LimitsSection, refusals: Refusals) -> None:
        self._refusals, door = refusals, _Door(limits, refusals)
        config = uvicorn.Config(
            app,
            http=partial(_Protocol, door),  # type: ignore[arg-type]  # it wants a class, and calls it
            ws="none",
            log_level="error",  # each bad request would be a line
            lifespan="off",
            access_log=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=limits.header_bytes,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().set_exception_handler(self._say_seldom)
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))

    async def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        if self._task is not None:
            await self._task

    def _say_seldom(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio tells of every connection that it could not accept, thousands a second without file descriptors."""
        if context.get("message") == "socket.accept() out of system resource":
            self._refusals.note("NO_FILE_DESCRIPTORS", str(context.get("exception")))
        else:
            loop.default_exception_handler(context)
