"""Connections to processes of this machine: a stream socket each, with nobody between the two threads."""

import selectors
import socket

from actors.transport.stream import Received, Stream

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class NearLinks:
    """See `actors.transport.channel.Links`. A link's name is the number of its socket's file."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._streams: dict[int, Stream] = {}
        self._dropped: list[int] = []

    def fileno(self) -> int:
        """Can be read when something can be received here."""
        return self._selector.fileno()  # epoll and kqueue have one

    def open(self, endpoint: str, key: bytes) -> int:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(endpoint)
        except OSError:
            connection.close()
            raise
        stream = Stream(connection)
        self._streams[stream.fileno()] = stream
        self._selector.register(stream, _READ)
        return stream.fileno()

    def send(self, name: int, head: bytes, rows: memoryview) -> None:
        stream = self._streams[name]
        stream.send(head, rows)
        if stream.unsent:
            self._selector.modify(name, _READ | _WRITE)

    def wait(self, seconds: float) -> list[Received]:
        received: list[Received] = []
        for key, events in self._selector.select(seconds):
            stream = self._streams[key.fd]
            try:
                if events & _WRITE:
                    stream.flush()
                    if not stream.unsent:
                        self._selector.modify(key.fd, _READ)
                if message := stream.receive():  # if there are more, the next wait ends at once
                    received.append(message)
            except (OSError, ValueError, MemoryError):
                self.drop(key.fd)
                self._dropped.append(key.fd)
        return received

    def broken(self) -> list[int]:
        dropped, self._dropped = self._dropped, []
        return dropped

    def drop(self, name: int) -> None:
        self._selector.unregister(name)
        self._streams.pop(name).close()

    def close(self) -> None:
        for name in list(self._streams):
            self.drop(name)
        self._selector.close()
