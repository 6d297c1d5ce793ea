"""An expert's end of the direct channel: threads that compute what their sockets bring, and answer there.

A message's head is the call's id and the header of its rows, its body the rows. With the id alone as its head the body
is the text of an error. The thread that receives a call computes it, because a hand-over between threads costs more
than a small call.
"""

import contextlib
import logging
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable

import zmq

from actors.replica import Address
from actors.transport.rows import RowsHeader, decode_header, encode_header
from actors.transport.stream import Stream

log = logging.getLogger("eightwinds.channel")

ID_BYTES = 8
Answer = Callable[[RowsHeader, memoryview], tuple[RowsHeader, memoryview]]  # an expert: rows in, as many rows out
_Reply = Callable[[bytes, memoryview], tuple[bytes, memoryview]]  # head and body of a call to those of its answer
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_CREDENTIALS = struct.Struct("3i")  # pid, user, group


class ChannelServer:
    """Answers calls of any number of heads, one after the other."""

    def __init__(self, answer: Answer, node_id: str, file: str, host: str = "") -> None:
        """`file` is the socket's path; `host` is the address to listen on for other machines, if there are any."""
        self._answer, self._turn = answer, threading.Lock()
        self._near = _NearDoor(self._reply, file)
        self._far = _FarDoor(self._reply, host) if host else None
        tcp, key = (self._far.address, self._far.key) if self._far else ("", b"")
        self.address = Address(node_id, file, tcp, key)

    def close(self) -> None:
        """Answer no more; what is under way is lost."""
        self._near.close()
        if self._far:
            self._far.close()

    def _reply(self, head: bytes, rows: memoryview) -> tuple[bytes, memoryview]:
        call_id = head[:ID_BYTES]
        try:
            with self._turn:
                header, answer = self._answer(decode_header(head[ID_BYTES:]), rows)
        except Exception as error:  # whatever a call was refused for, or a bug: the head is told
            log.exception("a call failed")
            return call_id, memoryview(f"{type(error).__name__}: {error}".encode())
        return call_id + encode_header(header), answer


class _NearDoor:
    """For callers of this machine that run as the same user."""

    def __init__(self, reply: _Reply, file: str) -> None:
        self._reply = reply
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(file)
        os.chmod(file, 0o600)
        self._listener.listen()
        self._listener.setblocking(False)
        self._ended, self._end = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._streams: dict[int, Stream] = {}
        for watched in (self._listener, self._ended):
            self._selector.register(watched, _READ)
        threading.Thread(target=self._run, name="channel", daemon=True).start()

    def close(self) -> None:
        for stream in list(self._streams.values()):
            stream.shut()
        self._end.close()

    def _run(self) -> None:
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._ended:
                    self._shut()
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif stream := self._streams.get(key.fd):
                    self._serve(stream, key.events, events)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again, or no file is left for it
            return
        if _user_of(connection) != os.getuid():
            log.warning("a connection of another user was refused")
            connection.close()
            return
        stream = Stream(connection)
        self._streams[stream.fileno()] = stream
        self._selector.register(stream, _READ)

    def _serve(self, stream: Stream, watched: int, events: int) -> None:
        try:
            if events & _WRITE:
                stream.flush()
            if message := stream.receive():  # if there are more, the next turn of the loop comes at once
                stream.send(*self._reply(*message))
            wanted = _READ | _WRITE if stream.unsent else _READ
            if wanted != watched:
                self._selector.modify(stream, wanted)
        except (OSError, ValueError, MemoryError) as error:
            log.debug("a connection ended: %s", error)
            self._selector.unregister(stream)
            self._streams.pop(stream.fileno()).close()

    def _shut(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self._selector.close()
        self._listener.close()  # its file stays: a process that comes after may have made it its own
        self._ended.close()


def _user_of(connection: socket.socket) -> int:
    """The user of the process at the other end; our own where the system cannot tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(told)[1])


class _FarDoor:
    """For callers of other machines, which must know its key."""

    def __init__(self, reply: _Reply, host: str) -> None:
        self._reply, self._context = reply, zmq.Context()
        s: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        s.linger = s.sndhwm = s.rcvhwm = 0
        self.key, s.curve_secretkey = zmq.curve_keypair()
        s.curve_server = True
        self.address = f"tcp://{host}:{s.bind_to_random_port(f'tcp://{host}')}"
        self._socket = s
        threading.Thread(target=self._run, name="channel-far", daemon=True).start()

    def close(self) -> None:
        self._context.term()  # which the thread is told by an error

    def _run(self) -> None:
        with contextlib.suppress(zmq.ContextTerminated):
            while True:
                self._answer_one()
        self._socket.close()

    def _answer_one(self) -> None:
        caller, *frames = self._socket.recv_multipart(copy=False)
        if len(frames) != 2:
            return
        head, rows = frames
        try:
            self._socket.send_multipart([caller, *self._reply(head.bytes, rows.buffer)], copy=False)
        except zmq.ContextTerminated:
            raise
        except zmq.ZMQError as error:
            log.debug("an answer has no way back: %s", error)
