"""An expert's end of the direct channel: a thread that computes what its sockets bring, and answers there.

A message is two frames: the call's id with the header of its rows, and the rows. Behind the id alone stands the text of
an error. The thread that receives a call computes it, because a hand-over between threads costs more than a small call.
"""

import logging
import os
import threading
from collections.abc import Callable

import zmq

from actors.replica import Address
from actors.transport.rows import RowsHeader, decode_header, encode_header

log = logging.getLogger("eightwinds.channel")

ID_BYTES = 8
Answer = Callable[[RowsHeader, memoryview], tuple[RowsHeader, memoryview]]  # an expert: rows in, as many rows out


class ChannelServer:
    """Answers calls of any number of heads, one after the other."""

    def __init__(self, answer: Answer, node_id: str, file: str, host: str = "") -> None:
        """`file` is the socket's path; `host` is the address to listen on for other machines, if there are any."""
        self._answer, self._context = answer, zmq.Context()
        near, tcp, key = self._socket(), "", b""
        near.bind(f"ipc://{file}")
        os.chmod(file, 0o600)
        self._sockets = [near]
        if host:
            far = self._socket()
            key, far.curve_secretkey = zmq.curve_keypair()
            far.curve_server = True
            tcp = f"tcp://{host}:{far.bind_to_random_port(f'tcp://{host}')}"
            self._sockets.append(far)
        self.address = Address(node_id, f"ipc://{file}", tcp, key)
        threading.Thread(target=self._run, name="channel", daemon=True).start()

    def close(self) -> None:
        """Answer no more; what is under way is lost."""
        self._context.term()  # which the thread is told by an error

    def _socket(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = socket.sndhwm = socket.rcvhwm = 0
        return socket

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        try:
            while True:
                for socket, _ in poller.poll():
                    self._answer_one(socket)
        except zmq.ContextTerminated:
            for socket in self._sockets:
                socket.close()

    def _answer_one(self, socket: "zmq.Socket[bytes]") -> None:
        caller, *frames = socket.recv_multipart(copy=False)
        if len(frames) != 2:
            return
        head, rows = frames
        try:
            socket.send_multipart([caller, *self._reply(head.bytes, rows.buffer)], copy=False)
        except zmq.ZMQError as error:
            log.debug("an answer has no way back: %s", error)

    def _reply(self, head: bytes, rows: memoryview) -> tuple[bytes, memoryview]:
        call_id = head[:ID_BYTES]
        try:
            header, answer = self._answer(decode_header(head[ID_BYTES:]), rows)
        except Exception as error:  # whatever a call was refused for, or a bug: the head is told
            log.exception("a call failed")
            return call_id, memoryview(f"{type(error).__name__}: {error}".encode())
        return call_id + encode_header(header), answer
