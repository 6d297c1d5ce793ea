"""The HTTP port: /healthz (the process lives), /readyz (it answers requests), /metrics (Prometheus).

A request has a time to come whole. When all connections are taken, the one that has kept us waiting longest goes, so
that a probe is always heard.
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
    """All connections, and those that owe us the rest of a request, longest first, each with the timer that ends it."""

    def __init__(self, limits: LimitsSection, refusals: Refusals) -> None:
        self._seconds, self._most, self._refusals = limits.http_head_s, limits.http_connections, refusals
        self._all: set[_Protocol] = set()
        self._owing: dict[_Protocol, asyncio.TimerHandle] = {}

    def enter(self, new: "_Protocol") -> None:
        """One more; if that is too many the one that has owed longest goes, else the new one."""
        self._all.add(new)
        if len(self._all) > self._most:
            self.put_out(next(iter(self._owing), new), "HTTP_TOO_MANY")

    def leave(self, gone: "_Protocol") -> None:
        self._all.discard(gone)
        self.owes(gone, False)

    def owes(self, who: "_Protocol", owing: bool) -> None:
        """Whether its next bytes are waited for. They do not set its timer back while a request is incomplete."""
        if not owing and (timer := self._owing.pop(who, None)):
            timer.cancel()
        if owing and who not in self._owing:
            self._owing[who] = who.loop.call_later(self._seconds, self.put_out, who, "HTTP_TOO_SLOW")

    def put_out(self, who: "_Protocol", reason: str) -> None:
        self._refusals.note(reason, str(who.client))
        self.leave(who)
        who.transport.abort()


class _Protocol(H11Protocol):
    """uvicorn's, which tells the door what it waits for."""

    def __init__(self, door: _Door, **given: Any) -> None:
        super().__init__(**given)
        self._door = door

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._tell_door()
        self._door.enter(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._tell_door()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which takes up a request that has come meanwhile, perhaps half of it
        self._tell_door()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        super().connection_lost(exc)

    def _tell_door(self) -> None:
        self._door.owes(self, self.conn.their_state in (h11.IDLE, h11.SEND_BODY))


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
