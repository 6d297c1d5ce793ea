"""HTTP/2 by hand, as no well-behaved library would send it: frames, header blocks, and a socket that never answers."""

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
GENERATE = "/eightwinds.v1.InferenceService/Generate"
STREAM = "/eightwinds.v1.InferenceService/GenerateStream"
WATCH_HEALTH = "/grpc.health.v1.Health/Watch"
_FIRST_DYNAMIC = 62  # index of the newest entry of HPACK's dynamic table


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _integer(value: int, prefix: int, flags: int) -> bytes:
    """HPACK's integer: `prefix` bits of the first byte, then seven at a time.

    >>> _integer(1337, 5, 0).hex()
    '1f9a0a'
    """
    most = (1 << prefix) - 1
    if value < most:
        return bytes([flags | value])
    out, rest = [flags | most], value - most
    while rest >= 128:
        out.append(128 | rest & 127)
        rest >>= 7
    return bytes([*out, rest])


def literal(name: str, value: bytes, indexed: bool = False) -> bytes:
    """A header with its name and value as they are; `indexed` puts it into the dynamic table."""
    first = b"\x40" if indexed else b"\x00"
    return first + _integer(len(name), 7, 0) + name.encode() + _integer(len(value), 7, 0) + value


def again(count: int) -> bytes:
    """The newest entry of the dynamic table, `count` times: one byte each."""
    return _integer(_FIRST_DYNAMIC, 7, 0x80) * count


def request_head(path: str, more: Iterable[tuple[str, str]] = ()) -> bytes:
    """The header block of a gRPC call."""
    named = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a"), ("te", "trailers")]
    named += [("content-type", "application/grpc"), *more]
    return b"".join(literal(name, value.encode()) for name, value in named)


class Connection:
    """A connection that says what it is told to say. Answers are read only by `frames`."""

    def __init__(self, address: str, acknowledge: bool = True) -> None:
        """With `acknowledge` the server's settings are acknowledged, unseen."""
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=5.0)
        self._stream = 1
        self.send(PREFACE + frame(SETTINGS, 0, 0) + (frame(SETTINGS, ACK, 0) if acknowledge else b""))

    def send(self, data: bytes) -> bool:
        """False if the server has closed the connection, or takes nothing for five seconds."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def next_stream(self) -> int:
        """An id that was not used."""
        self._stream += 2
        return self._stream - 2

    def frames(self, seconds: float) -> Iterator[tuple[int, int, int, bytes]]:
        """(kind, flags, stream, payload) as they come, until nothing does for `seconds` or the connection is closed."""
        self._socket.settimeout(seconds)
        held = b""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 16):
                held += data
                while len(held) >= 9 and len(held) >= 9 + int.from_bytes(held[:3], "big"):
                    size = int.from_bytes(held[:3], "big")
                    yield held[3], held[4], int.from_bytes(held[5:9], "big"), held[9 : 9 + size]
                    held = held[9 + size :]

    def close(self) -> None:
        """End it."""
        self._socket.close()
