"""The HTTP port."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cluster.gateway.web.server import HttpServer, application
from cluster.observe.refusals import Refusals
from cluster.settings.address import bind
from cluster.settings.sections import LimitsSection

LONG = 24 << 20  # more than the kernel holds for a connection


async def no_metrics() -> bytes:
    return b""


def served(
    limits: LimitsSection | None = None, refusals: Refusals | None = None, ready: Callable[[], bool] = lambda: True
) -> HttpServer:
    return HttpServer(application(ready, no_metrics), limits or LimitsSection(), refusals or Refusals())


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
    server, taken = served(ready=lambda: ready[0]), bind("127.0.0.1:0")
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
    server, taken = served(), bind("127.0.0.1:0")
    port = taken.getsockname()[1]
    await server.start(taken)
    with socket.create_connection(("127.0.0.1", port)):
        await get(port, "/healthz")
        async with asyncio.timeout(20):
            await server.stop()


async def test_a_server_that_never_started_can_be_stopped() -> None:
    await served().stop()


async def test_metrics_are_shown() -> None:
    async def metrics() -> bytes:
        return b"a 1\n"

    server, taken = HttpServer(application(lambda: True, metrics), LimitsSection(), Refusals()), bind("127.0.0.1:0")
    port = taken.getsockname()[1]
    await server.start(taken)
    assert await get(port, "/metrics") == (200, "a 1\n")
    async with asyncio.timeout(20):
        await server.stop()


class Half:
    """Connections that never send their requests whole."""

    def __init__(self, port: int, count: int) -> None:
        self.sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        for each in self.sockets:
            each.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")

    def close(self) -> None:
        for each in self.sockets:
            each.close()


async def test_half_requests_do_not_keep_a_probe_out() -> None:
    refusals = Refusals()
    server = served(LimitsSection(http_connections=8), refusals)
    taken = bind("127.0.0.1:0")
    port = taken.getsockname()[1]
    await server.start(taken)
    half = await asyncio.to_thread(Half, port, 40)
    for _ in range(3):
        assert await get(port, "/healthz") == (200, "ok\n")
    assert refusals.counts["HTTP_TOO_MANY"] >= 32
    half.close()
    async with asyncio.timeout(20):
        await server.stop()


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /healthz HTTP/1.1\r\nHo", b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\nx"],
)
async def test_a_request_has_its_time_however_it_trickles(begun: bytes) -> None:
    refusals = Refusals()
    server, taken = served(LimitsSection(http_head_s=0.2), refusals), bind("127.0.0.1:0")
    await server.start(taken)
    reader, writer = await asyncio.open_connection("127.0.0.1", taken.getsockname()[1])
    writer.write(begun)
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while True:  # a byte now and then does not give it more time
                try:
                    if not await asyncio.wait_for(reader.read(1000), 0.05):
                        break
                except TimeoutError:
                    writer.write(b"a")
        assert refusals.counts["HTTP_TOO_SLOW"] == 1
        writer.close()
        await server.stop()


async def test_a_connection_that_is_kept_has_its_next_request_timed_too() -> None:
    refusals = Refusals()
    server, taken = served(LimitsSection(http_head_s=0.2), refusals), bind("127.0.0.1:0")
    await server.start(taken)
    reader, writer = await asyncio.open_connection("127.0.0.1", taken.getsockname()[1])
    async with asyncio.timeout(20):
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        assert await reader.read() == b""
        assert refusals.counts["HTTP_TOO_SLOW"] == 1
        writer.close()
        await server.stop()


async def test_a_head_has_so_many_bytes() -> None:
    server, taken = served(LimitsSection(header_bytes=4096)), bind("127.0.0.1:0")
    port = taken.getsockname()[1]
    await server.start(taken)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /" + b"a" * 10_000)
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    async with asyncio.timeout(20):
        await server.stop()


async def test_a_machine_without_file_descriptors_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    server, taken = served(refusals=refusals), bind("127.0.0.1:0")
    await server.start(taken)
    with caplog.at_level(logging.WARNING):
        for _ in range(14_000):
            asyncio.get_running_loop().call_exception_handler(
                {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
            )
        assert refusals.counts["NO_FILE_DESCRIPTORS"] == 14_000
        assert len(caplog.records) == 1 and "Too many open files" in caplog.text
        asyncio.get_running_loop().call_exception_handler({"message": "something else"})
        assert "something else" in caplog.text
    async with asyncio.timeout(20):
        await server.stop()


class Deaf:
    """A connection that asks for something long and reads nothing of it."""

    def __init__(self, port: int, path: str = "/metrics") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    async def read(self, most: int) -> int:
        """How many bytes came; fewer than `most` at the end."""
        count = 0
        with contextlib.suppress(ConnectionError):
            while part := await asyncio.to_thread(self.socket.recv, 1 << 16):
                count += len(part)
                if count >= most:
                    break
        return count


async def long_answer() -> bytes:
    return b"a" * LONG


async def test_an_answer_that_nobody_reads_is_given_up() -> None:
    """F11."""
    refusals = Refusals()
    server = HttpServer(application(lambda: True, long_answer), LimitsSection(http_unread_s=0.2), refusals)
    taken = bind("127.0.0.1:0")
    await server.start(taken)
    deaf = Deaf(taken.getsockname()[1])
    async with asyncio.timeout(20):
        while not refusals.counts["HTTP_UNREAD"]:
            await asyncio.sleep(0.01)
        assert await deaf.read(LONG) < LONG
        deaf.socket.close()
        await server.stop()


async def test_a_stream_that_nobody_reads_ends_its_source() -> None:
    """F11: a drain waits for it no longer."""
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"a" * (1 << 20)
                await asyncio.sleep(0)  # as every source of ours waits for something
        finally:
            ended.set()

    async def stream(request: Request) -> Response:
        return StreamingResponse(endless())

    page = application(lambda: True, no_metrics, [Route("/stream", stream)])
    server, taken = HttpServer(page, LimitsSection(http_unread_s=0.2), Refusals()), bind("127.0.0.1:0")
    await server.start(taken)
    deaf = Deaf(taken.getsockname()[1], "/stream")
    async with asyncio.timeout(20):
        await ended.wait()
        deaf.socket.close()
        await server.stop()


async def test_an_answer_that_is_read_slowly_comes_whole() -> None:
    """Neither the time for a next request nor that of one that stands still ends it."""
    refusals = Refusals()
    limits = LimitsSection(http_head_s=0.1, http_unread_s=1.0)
    server, taken = HttpServer(application(lambda: True, long_answer), limits, refusals), bind("127.0.0.1:0")
    await server.start(taken)
    slow, count = Deaf(taken.getsockname()[1]), 0
    async with asyncio.timeout(20):
        for _ in range(5):
            count += await slow.read(1 << 20)
            await asyncio.sleep(0.1)
        assert count + await slow.read(LONG - count) >= LONG
        assert not refusals.counts["HTTP_UNREAD"]
        slow.socket.close()
        await server.stop()
