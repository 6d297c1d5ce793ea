"""TLS on both ports: who gets through, and that a new certificate breaks nothing."""

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from cluster.client.client import Client
from cluster.client.failures import CallFailed, failing_plainly
from cluster.client.messages import text_request
from cluster.client.tls import Tls, read_tls
from cluster.engine.served_model import ServedModel
from cluster.gateway.web.server import HttpServer, application
from cluster.observe.refusals import Refusals
from cluster.settings.address import bind
from cluster.settings.request_options import Options
from cluster.settings.sections import LimitsSection
from tests.certificates import Authority, Pair, certificates
from tests.engines import engine_bounds
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Serving

LONG = 24 << 20  # more than the kernel holds for a connection
REQUEST = text_request("My favourite", Options(max_tokens=2))


async def long_answer() -> bytes:
    return bytes(LONG)


class Secured:
    """A server with TLS; a `mutual` one asks for certificates of its `authority`."""

    def __init__(
        self, served: ServedModel, folder: Path, mutual: bool = False, limits: LimitsSection | None = None
    ) -> None:
        self.authority, self.stranger = Authority(folder), Authority(folder, "stranger")
        self.pair = self.authority.issue()
        known = certificates(self.pair, self.authority.file if mutual else None)
        self.server = Serving(served, certificates=known, limits=limits).ready(FakeHead(), engine_bounds())

    def generate(self, tls: Tls | None) -> str:
        with Client(self.server.address, tls=tls) as client:
            return client.generate(REQUEST, timeout=PATIENCE).request_id

    def get(self, context: ssl.SSLContext) -> int:
        host, port = self.server.http.split(":")
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=PATIENCE)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        return status

    def context(self, ca: Path, shown: Pair | None = None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(ca))
        if shown:
            made.load_cert_chain(shown.certificate, shown.key)
        return made


@pytest.fixture
def secured(demo: ServedModel, tmp_path: Path) -> Iterator[Secured]:
    made = Secured(demo, tmp_path)
    yield made
    made.server.close()


@pytest.fixture
def mutual(demo: ServedModel, tmp_path: Path) -> Iterator[Secured]:
    made = Secured(demo, tmp_path, mutual=True)
    yield made
    made.server.close()


def tls(ca: Path, shown: Pair | None = None) -> Tls | None:
    return read_tls(False, ca, shown.certificate if shown else None, shown.key if shown else None)


def test_a_client_that_knows_the_authority_gets_through(secured: Secured) -> None:
    assert secured.generate(tls(secured.authority.file))
    assert secured.get(secured.context(secured.authority.file)) == 200


def test_a_client_that_trusts_another_authority_does_not(secured: Secured) -> None:
    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        secured.generate(tls(secured.stranger.file))
    with pytest.raises(ssl.SSLCertVerificationError):
        secured.get(secured.context(secured.stranger.file))


def test_a_client_without_tls_is_told_what_may_be_missing(secured: Secured) -> None:
    with (
        Client(secured.server.address) as client,
        pytest.raises(CallFailed, match="--ca or --tls is missing"),
        failing_plainly(client),
    ):
        client.generate(REQUEST, timeout=PATIENCE)
    host, port = secured.server.http.split(":")
    plain = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain.request("GET", "/readyz")
        plain.getresponse()
    refusals, pause = secured.server.gateway.refusals, threading.Event()
    while not refusals.counts["TLS_REFUSED"]:  # counted after the connection has ended
        pause.wait(0.005)


def test_mutual_tls_lets_in_only_clients_of_the_authority(mutual: Secured) -> None:
    ca = mutual.authority.file
    good, strange = mutual.authority.issue(), mutual.stranger.issue()
    expired = mutual.authority.issue(until=datetime(2026, 1, 1, tzinfo=UTC))
    assert mutual.generate(tls(ca, good))
    assert mutual.get(mutual.context(ca, good)) == 200
    for shown in (None, strange, expired):
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            mutual.generate(tls(ca, shown))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            mutual.get(mutual.context(ca, shown))


def test_a_new_certificate_is_shown_to_new_connections_and_breaks_no_old_one(secured: Secured) -> None:
    ca, failed, stop = tls(secured.authority.file), list[BaseException](), threading.Event()
    context = secured.context(secured.authority.file)
    done = [0, 0]

    def ask(newcomer: bool) -> None:
        try:
            with Client(secured.server.address, tls=ca) as client:
                while not stop.is_set():
                    client.generate(REQUEST, timeout=PATIENCE)
                    done[newcomer] += 1
                    if newcomer:
                        secured.generate(ca)
                        assert secured.get(context) == 200
        except Exception as error:
            failed.append(error)

    assert secured.get(context) == 200  # opens the port
    callers = [threading.Thread(target=ask, args=(newcomer,)) for newcomer in (False, True)]
    for caller in callers:
        caller.start()
    shown = set()
    for _ in range(5):
        secured.pair.replace(secured.authority.issue())
        goal = done[1] + 3
        while done[1] < goal and not failed:
            threading.Event().wait(0.005)
        for address in (secured.server.address, secured.server.http):
            host, port = address.split(":")
            shown.add((address, ssl.get_server_certificate((host, int(port)))))
    stop.set()
    for caller in callers:
        caller.join(PATIENCE)
    assert not failed
    assert len(shown) == 10, "each of five certificates on both ports"


def test_a_connection_that_never_encrypts_ends_in_time_and_counts(demo: ServedModel, tmp_path: Path) -> None:
    secured = Secured(demo, tmp_path, limits=LimitsSection(http_head_s=0.1))
    host, port = secured.server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as silent:
        assert silent.recv(1) == b"", "it was ended"
    refusals, pause = secured.server.gateway.refusals, threading.Event()
    while not any(refusals.counts[why] for why in ("HTTP_TOO_SLOW", "TLS_REFUSED")):
        pause.wait(0.005)
    secured.server.close()


class Web:
    """An HTTP port with TLS, which answers with `LONG` bytes."""

    def __init__(self, folder: Path, **limits: float) -> None:
        self.authority, self.refusals = Authority(folder), Refusals()
        app, bounds = application(lambda: True, long_answer), LimitsSection(**limits)  # type: ignore[arg-type]  # seconds
        self.server = HttpServer(app, bounds, self.refusals, certificates(self.authority.issue()))
        self._taken = bind("127.0.0.1:0")
        self.port = self._taken.getsockname()[1]

    async def ask(self, connection: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that has read the head of the answer, and reads no further by itself."""
        await self.server.start(self._taken)
        context = ssl.create_default_context(cafile=str(self.authority.file))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, limit=1 << 16)
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        return reader, writer


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_an_answer_that_is_read_slowly_comes_whole(connection: str, tmp_path: Path) -> None:
    web, count = Web(tmp_path, http_unread_s=2.0), 0  # the kernel takes megabytes at a time, so seldom
    async with asyncio.timeout(60):
        reader, writer = await web.ask(connection)
        for _ in range(9):  # longer than a client may stand still
            count += len(await reader.readexactly(2 << 20))
            await asyncio.sleep(0.3)
        while count < LONG:
            count += len(await reader.readexactly(min(1 << 19, LONG - count)))
        assert not web.refusals.counts["HTTP_UNREAD"]
        writer.close()
        await web.server.stop()


async def test_an_answer_that_nobody_reads_is_given_up(tmp_path: Path) -> None:
    web = Web(tmp_path, http_unread_s=0.2)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await web.ask("keep-alive")
        while not web.refusals.counts["HTTP_UNREAD"]:
            await asyncio.sleep(0.01)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)):
            await reader.readexactly(LONG)
        writer.close()
        await web.server.stop()


async def test_the_end_of_a_server_waits_for_no_handshake(tmp_path: Path) -> None:
    web = Web(tmp_path, http_head_s=10 * PATIENCE)
    async with asyncio.timeout(PATIENCE):
        await web.server.start(web._taken)
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"\x16")  # the first byte of a handshake
        await writer.drain()
        await web.server.stop()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


def test_a_request_that_comes_with_the_last_words_of_the_handshake_is_answered(secured: Secured) -> None:
    host, port = secured.server.http.split(":")
    context = secured.context(secured.authority.file)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    speaking = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as wire:
        while True:
            try:
                speaking.do_handshake()
                break
            except ssl.SSLWantReadError:
                wire.sendall(outgoing.read())
                incoming.write(wire.recv(1 << 16))
        speaking.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        wire.sendall(outgoing.read())  # Finished and the request in one piece
        answer = b""
        while b"ok" not in answer:
            try:
                answer += speaking.read()
            except ssl.SSLWantReadError:
                received = wire.recv(1 << 16)
                assert received, f"it hung up after {answer!r}"
                incoming.write(received)
    assert answer.startswith(b"HTTP/1.1 200")
