"""The HTTP port: /healthz (the process lives), /readyz (it answers requests), /metrics (Prometheus).

A request has a time to come whole, and an answer one in which none of it is taken.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
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

from cluster.gateway.web.door import Door
from cluster.gateway.web.tls import Handshake
from cluster.observe.refusals import Refusals
from cluster.settings.certificates import Certificates
from cluster.settings.sections import LimitsSection

_KEEP_ALIVE_SECONDS = 5
_MOST_EARLY_BYTES = 64 << 10  # of a next request that are kept while an answer is made
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


class _Protocol(H11Protocol):
    """uvicorn's, which tells the door what it waits for, and sees a client leave in the middle of its answer."""

    def __init__(self, door: Door, **given: Any) -> None:
        """`wire` is the socket's transport where `transport` encrypts."""
        super().__init__(**given)
        self.wire: asyncio.Transport | None = None
        self._door, self._unread = door, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        # So that `pause_writing` tells of every byte that is not taken. asyncio's TLS pauses at the limit, not above.
        transport.set_write_buffer_limits(1 if self.wire else 0)
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
        self._tell_door()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._tell_door()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        super().connection_lost(exc)

    def has_read(self) -> bool:
        before, self._unread = self._unread, self._unsent()
        return self._unread < before or not self._unread

    def _unsent(self) -> int:
        return self.transport.get_write_buffer_size() + (self.wire.get_write_buffer_size() if self.wire else 0)

    def _tell_door(self) -> None:
        unread = self.flow.write_paused or self._unsent() > 0  # TLS hands a whole answer on, and pauses nobody
        if not (unread and self._unread):  # a wait begins, or there is none
            self._unread = self._unsent()
        self._door.awaits(self, unread, self.conn.their_state in (h11.IDLE, h11.SEND_BODY))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`, which drains first."""
        yield


class HttpServer:
    def __init__(
        self, app: Starlette, limits: LimitsSection, refusals: Refusals, certificates: Certificates | None = None
    ) -> None:
        """With `certificates` it speaks TLS alone."""
        self._refusals, self._door = refusals, Door(limits, refusals)

        def connection(**given: Any) -> asyncio.Protocol:
            spoken = _Protocol(self._door, **given)
            return Handshake(self._door, certificates, limits.http_head_s, spoken) if certificates else spoken

        config = uvicorn.Config(
            app,
            http=connection,  # type: ignore[arg-type]  # it wants a class, and calls it
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
        self._door.close()
        if self._task is not None:
            await self._task

    def _say_seldom(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio tells of every connection that it could not accept, thousands a second without file descriptors."""
        if context.get("message") == "socket.accept() out of system resource":
            self._refusals.note("NO_FILE_DESCRIPTORS", str(context.get("exception")))
        else:
            loop.default_exception_handler(context)
