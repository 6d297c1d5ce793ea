"""Messages on a stream socket, in whatever pieces they come."""

import socket
import struct
from collections.abc import Iterator

import pytest

from actors.transport.stream import Received, Stream

Pair = tuple[Stream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A stream, and the bare socket at the other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    stream = Stream(ours)
    yield stream, theirs
    stream.close()
    theirs.close()


def message(head: bytes, body: bytes) -> bytes:
    return struct.pack("<IQ", len(head), len(body)) + head + body


def received(stream: Stream) -> list[tuple[bytes, bytes]]:
    found: list[Received] = []
    while one := stream.receive():
        found.append(one)
    return [(head, bytes(body)) for head, body in found]


def test_a_message_that_comes_byte_by_byte_is_there_with_its_last_one(pair: Pair) -> None:
    stream, other = pair
    sent = message(b"head", b"body!")
    for byte in sent[:-1]:
        other.send(bytes([byte]))
        assert stream.receive() is None
    other.send(sent[-1:])
    assert received(stream) == [(b"head", b"body!")]


def test_messages_that_come_together_are_told_apart(pair: Pair) -> None:
    stream, other = pair
    other.sendall(message(b"a", b"1") + message(b"", b"") + message(b"c", b"333") + message(b"d", b"4")[:3])
    assert received(stream) == [(b"a", b"1"), (b"", b""), (b"c", b"333")]


def test_what_the_socket_does_not_take_is_sent_later_and_in_order(pair: Pair) -> None:
    stream, other = pair
    bodies = [bytes([i]) * 300_000 for i in range(4)]
    for i, body in enumerate(bodies):
        stream.send(b"h%d" % i, memoryview(body))
    assert stream.unsent
    wanted = b"".join(message(b"h%d" % i, body) for i, body in enumerate(bodies))
    got = bytearray()
    while len(got) < len(wanted):
        got += other.recv(1 << 16)
        stream.flush()
    assert got == wanted and not stream.unsent


def test_an_end_that_closes_is_an_error_even_amid_a_message(pair: Pair) -> None:
    stream, other = pair
    other.sendall(message(b"head", b"body")[:-1])
    other.close()
    with pytest.raises(OSError, match="closed"):
        stream.receive()


def test_what_is_no_message_is_refused_before_memory_is_taken_for_it(pair: Pair) -> None:
    stream, other = pair
    other.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ValueError, match="none of ours"):
        stream.receive()


def test_a_connection_that_is_shut_by_another_thread_is_broken(pair: Pair) -> None:
    stream, _ = pair
    stream.shut()
    with pytest.raises(OSError, match=r"closed|Broken pipe"):
        stream.send(b"h", memoryview(b"b"))
