"""The HTTP port: /healthz (the process lives), /readyz (it answers requests), /metrics (Prometheus)."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def _nothing() -> bytes:
    return b""


def application(ready: Callable[[], bool], metrics: Callable[[], Awaitable[bytes]] = _nothing) -> Starlette:
    """The ASGI application. `metrics` gives the text of /metrics."""

    async def healthz(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ready\n") if ready() else PlainTextResponse("not ready\n", status_code=503)

    async def show_metrics(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    paths = {"/healthz": healthz, "/readyz": readyz, "/metrics": show_metrics}
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in paths.items()])


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`, which drains first."""
        yield


class HttpServer:
    """uvicorn on the caller's event loop."""

    def __init__(self, app: Starlette) -> None:
        self._server = _Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))
        self._task: asyncio.Task[None] | None = None

    async def start(self, listening: socket.socket) -> None:
        """Serve on a bound socket, in the background."""
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))

    async def stop(self) -> None:
        """Close the port."""
        self._server.should_exit = self._server.force_exit = True
        if self._task is not None:
            await self._task
