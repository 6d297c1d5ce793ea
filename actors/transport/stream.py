"""Messages on a stream socket, each of a head of a few bytes and a body of any size, neither copied on the way."""

import contextlib
import socket
import struct
from collections import deque

import numpy as np

_PREFIX = struct.Struct("<IQ")  # bytes of the head, bytes of the body
_MOST_HEAD, _MOST_BODY = 4096, 1 << 32
_AT_ONCE = 64  # buffers that one call of the system takes; it bears 1,024

Received = tuple[bytes, memoryview]


class Stream:
    """One end of a connection. Nothing here waits: what the socket does not take or have yet is left for later."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._unsent: deque[memoryview] = deque()
        self._part = memoryview(bytearray(_PREFIX.size))  # of a message: its prefix, its head, its body
        self._filled = 0
        self._head: bytes | None = None
        self._body_bytes: int | None = None

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def shut(self) -> None:
        """End the connection while another thread may use it, which then finds it broken."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def unsent(self) -> bool:
        """Whether something is queued, for which to wait until the socket can be written."""
        return bool(self._unsent)

    def send(self, head: bytes, body: memoryview) -> None:
        """Queue a message and `flush`. The body must not change until it is sent."""
        self._unsent.append(memoryview(_PREFIX.pack(len(head), body.nbytes) + head))
        if body.nbytes:
            self._unsent.append(body.cast("B"))
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes of the queue. OSError when the connection is broken."""
        while self._unsent:
            try:
                sent = self._socket.sendmsg([self._unsent[i] for i in range(min(_AT_ONCE, len(self._unsent)))])
            except BlockingIOError:
                return
            while sent:
                first = self._unsent.popleft()
                if sent < len(first):
                    self._unsent.appendleft(first[sent:])
                    break
                sent -= len(first)

    def receive(self) -> Received | None:
        """The next message, None if it has not come in whole; there may be another. OSError when the connection is
        broken or was closed, ValueError for what is no message.
        """
        while self._fill():
            if self._body_bytes is None:
                head_bytes, self._body_bytes = _PREFIX.unpack(self._part)
                if head_bytes > _MOST_HEAD or self._body_bytes > _MOST_BODY:
                    raise ValueError("a message that is none of ours")
                self._expect(memoryview(bytearray(head_bytes)))
            elif self._head is None:
                self._head = bytes(self._part)
                self._expect(memoryview(np.empty(self._body_bytes, dtype=np.uint8)))  # type: ignore[arg-type]  # a buffer
            else:
                message = self._head, self._part
                self._body_bytes = self._head = None
                self._expect(memoryview(bytearray(_PREFIX.size)))
                return message
        return None

    def _expect(self, part: memoryview) -> None:
        self._part, self._filled = part, 0

    def _fill(self) -> bool:
        """Whether the part is complete."""
        while self._filled < len(self._part):
            try:
                came = self._socket.recv_into(self._part[self._filled :])
            except BlockingIOError:
                return False
            if not came:
                raise ConnectionResetError("the other end has closed it")
            self._filled += came
        return True
