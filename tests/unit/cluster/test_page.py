"""The HTTP port."""

import asyncio
import signal
import socket

from cluster.address import bind
from cluster.page import HttpServer, application


async def get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(20):
        answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_healthz_says_alive_and_readyz_whether_requests_are_answered() -> None:
    ready = [False]
    server, taken = HttpServer(application(lambda: ready[0])), bind("127.0.0.1:0")
    port = taken.getsockname()[1]
    before = signal.getsignal(signal.SIGINT)
    await server.start(taken)
    assert await get(port, "/healthz") == (200, "ok\n")
    assert await get(port, "/readyz") == (503, "not ready\n")
    ready[0] = True
    assert await get(port, "/readyz") == (200, "ready\n")
    assert (await get(port, "/guess"))[0] == 404
    assert signal.getsignal(signal.SIGINT) is before, "signals are for `serve`, which drains first"
    async with asyncio.timeout(20):
        await server.stop()
    with bind(f"127.0.0.1:{port}") as again:
        assert again.fileno() >= 0


async def test_a_connection_that_stays_open_does_not_hold_the_end_up() -> None:
    server, taken = HttpServer(application(lambda: True)), bind("127.0.0.1:0")
    port = taken.getsockname()[1]
    await server.start(taken)
    with socket.create_connection(("127.0.0.1", port)):
        await get(port, "/healthz")
        async with asyncio.timeout(20):
            await server.stop()


async def test_a_server_that_never_started_can_be_stopped() -> None:
    await HttpServer(application(lambda: True)).stop()


async def test_metrics_are_shown() -> None:
    async def metrics() -> bytes:
        return b"a 1\n"

    server, taken = HttpServer(application(lambda: True, metrics)), bind("127.0.0.1:0")
    port = taken.getsockname()[1]
    await server.start(taken)
    assert await get(port, "/metrics") == (200, "a 1\n")
    async with asyncio.timeout(20):
        await server.stop()
