"""What is sent by hand: frames and half requests that no well-behaved library would send. None reads its answers."""

import contextlib
import socket
import time

from tests.abuse import wire
from tests.abuse.target import Target, until
from tests.abuse.wire import Connection, frame

_CANCEL = b"\x00\x00\x00\x08"
Metadata = tuple[tuple[str, str], ...]


def resets(server: Target, seconds: float) -> str:
    """Bursts of 200 calls that are reset at once."""
    connection, sent, closed = Connection(server.address), 0, 0
    head = wire.request_head(wire.GENERATE)
    for _ in until(seconds):
        streams = [connection.next_stream() for _ in range(200)]
        begun = b"".join(frame(wire.HEADERS, wire.END_HEADERS, s, head) for s in streams)
        if connection.send(begun + b"".join(frame(wire.RST_STREAM, 0, s, _CANCEL) for s in streams)):
            sent += 200
        else:
            connection, closed = Connection(server.address), closed + 1
    connection.close()
    return f"{sent} calls, cut off {closed} times"


def expanding_headers(server: Target, seconds: float) -> str:
    """Header lists of 400 bytes that are 1.2 MB in memory, on a connection that acknowledges nothing."""
    once, again, sent, closed = wire.literal("x-a", b"v" * 4000, indexed=True), wire.again(300), 0, 0
    connection, fresh = Connection(server.address, acknowledge=False), True
    for _ in until(seconds):
        block = wire.request_head(wire.GENERATE) + (once if fresh else b"") + again
        fresh = False
        if connection.send(frame(wire.HEADERS, wire.END_HEADERS, connection.next_stream(), block)):
            sent += 1
        else:
            connection, fresh, closed = Connection(server.address, acknowledge=False), True, closed + 1
    connection.close()
    return f"{sent} calls, cut off {closed} times"


def unfinished_messages(server: Target, seconds: float) -> str:
    """100 messages of 4 MB (16 MB are refused at once), as much of each as the server lets in, and never the end."""
    return _unfinished(server, seconds, ())


def unfinished_messages_with_a_token(server: Target, seconds: float) -> str:
    """The same from mallory, whose messages are read."""
    return _unfinished(server, seconds, server.metadata)


def _unfinished(server: Target, seconds: float, metadata: Metadata) -> str:
    size = (4 << 20) - 100
    senders = [_Sender(server.address, size, metadata) for _ in range(4)]
    for _ in until(seconds):
        for sender in senders:
            sender.step()
    sent = sum(sender.sent for sender in senders)
    for sender in senders:
        sender.close()
    return f"100 messages, {sent >> 20} MB of them taken in"


class _Sender:
    """25 calls on a connection that obeys flow control, and begins another one for each that is ended."""

    def __init__(self, address: str, size: int, metadata: Metadata) -> None:
        self._connection, self._size, self.sent = Connection(address, acknowledge=False), size, 0
        self._head = wire.request_head(wire.GENERATE, metadata)
        self._whole, self._initial = 65535, 65535  # windows of the connection, and of a new call
        self._calls: dict[int, list[int]] = {}  # window and rest of each
        self._alive = True

    def step(self) -> None:
        """Send what may be sent, and hear what there is."""
        while self._alive and len(self._calls) < 25:
            stream = self._connection.next_stream()
            head = frame(wire.HEADERS, wire.END_HEADERS, stream, self._head)
            self._calls[stream] = [self._initial - 5, self._size - 1]
            self._whole -= 5
            self._say(head + frame(wire.DATA, 0, stream, b"\0" + self._size.to_bytes(4, "big")))
        for stream, call in self._calls.items():
            count = min(16384, self._whole, *call)
            if count > 0:
                self._say(frame(wire.DATA, 0, stream, bytes(count)))
                self._whole -= count
                self.sent += count
                call[0] -= count
                call[1] -= count
        for kind, flags, stream, payload in self._connection.frames(0.001):
            self._hear(kind, flags, stream, payload)

    def close(self) -> None:
        """End it."""
        self._connection.close()

    def _say(self, data: bytes) -> None:
        self._alive = self._alive and self._connection.send(data)

    def _hear(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == wire.WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if stream == 0:
                self._whole += more
            elif stream in self._calls:
                self._calls[stream][0] += more
        elif kind == wire.SETTINGS and not flags & wire.ACK:
            for at in range(0, len(payload), 6):
                if payload[at : at + 2] == b"\x00\x04":
                    new = int.from_bytes(payload[at + 2 : at + 6], "big")
                    for call in self._calls.values():
                        call[0] += new - self._initial
                    self._initial = new
            self._say(frame(wire.SETTINGS, wire.ACK, 0))
        elif kind == wire.PING and not flags & wire.ACK:
            self._say(frame(wire.PING, wire.ACK, 0, payload))
        elif kind == wire.RST_STREAM or (kind == wire.HEADERS and flags & wire.END_STREAM):
            self._calls.pop(stream, None)


def half_requests(server: Target, seconds: float) -> str:
    """1,500 HTTP requests that never end, and a probe that must be heard beside them."""
    host, _, port = server.http.rpartition(":")
    half: list[socket.socket] = []
    heard = asked = 0
    for number in until(seconds):
        if len(half) < 1500:
            with contextlib.suppress(OSError):
                half.append(socket.create_connection((host, int(port)), timeout=1.0))
                half[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        else:
            time.sleep(0.01)
        if number % 50 == 0:
            asked += 1
            heard += _probe(host, int(port))
    for each in half:
        each.close()
    return f"{len(half)} requests; {heard} of {asked} probes answered"


def _probe(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2.0) as probe:
        probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return probe.recv(100).startswith(b"HTTP/1.1 200")
    return False


def health_watches(server: Target, seconds: float) -> str:
    """20,000 watches of health, of connections with 1,000 each."""
    sent, connections = 0, list[Connection]()
    message = b"\0\0\0\0\0"
    for _ in until(seconds):
        if sent < 20_000:
            if sent % 1000 == 0:
                connections.append(Connection(server.address))
            stream = connections[-1].next_stream()
            head = frame(wire.HEADERS, wire.END_HEADERS, stream, wire.request_head(wire.WATCH_HEALTH))
            connections[-1].send(head + frame(wire.DATA, wire.END_STREAM, stream, message))
            sent += 1
        else:
            time.sleep(0.01)
    for connection in connections:
        connection.close()
    return f"{sent} watches"
