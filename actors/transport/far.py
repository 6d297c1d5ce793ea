"""Connections to processes of other machines: ZeroMQ over TCP, encrypted with CURVE."""

import contextlib
from collections.abc import Iterator
from math import ceil

import zmq
from zmq.utils.monitor import recv_monitor_message

from actors.transport.stream import Received

_HEARTBEAT_MS, _SILENCE_MS = 1000, 5000  # a machine that went away closes no connection
_BROKEN = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_BROKEN |= zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


class FarLinks:
    """See `actors.transport.channel.Links`. One ROUTER socket holds all connections, and knows each by its name."""

    def __init__(self, beside: int) -> None:
        """`beside` is the number of a file that ends a wait when it can be read."""
        s: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket = s
        s.router_mandatory, s.reconnect_ivl = True, -1  # a lost peer is an error; it is opened anew by name
        s.linger = s.sndhwm = s.rcvhwm = 0
        s.connect_timeout = s.handshake_ivl = s.heartbeat_timeout = _SILENCE_MS
        s.heartbeat_ivl = _HEARTBEAT_MS
        self._keys = zmq.curve_keypair()
        self._monitor = s.get_monitor_socket(_BROKEN)
        self._poller = zmq.Poller()
        for watched in (s, self._monitor, beside):
            self._poller.register(watched, zmq.POLLIN)
        self._names: dict[str, int] = {}  # of the newest link to an endpoint
        self._count = 0

    def open(self, endpoint: str, key: bytes) -> int:
        self._events()  # what is still told of the old connection must not end the new one
        self._count += 1
        s = self._socket  # its options count for the connections that are opened after they were set
        s.setsockopt(zmq.CONNECT_ROUTING_ID, self._count.to_bytes(4, "little"))
        s.curve_serverkey, (s.curve_publickey, s.curve_secretkey) = key, self._keys
        with _as_os_errors():
            s.connect(endpoint)
        self._names[endpoint] = self._count
        return self._count

    def send(self, name: int, head: bytes, rows: memoryview) -> None:
        with _as_os_errors():
            self._socket.send_multipart([name.to_bytes(4, "little"), head, rows], copy=False)

    def wait(self, seconds: float) -> list[Received]:
        self._poller.poll(ceil(seconds * 1000))
        received: list[Received] = []
        with contextlib.suppress(zmq.Again):
            while True:
                _, head, rows = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
                received.append((head.bytes, rows.buffer))
        return received

    def broken(self) -> list[int]:
        return [name for endpoint in self._events() if (name := self._names.pop(endpoint, None)) is not None]

    def drop(self, name: int) -> None:
        """ZeroMQ has dropped it by itself."""

    def close(self) -> None:
        self._socket.disable_monitor()
        self._socket.close()

    def _events(self) -> list[str]:
        """The endpoints whose connections broke."""
        endpoints = []
        while self._monitor.poll(0):
            endpoints.append(recv_monitor_message(self._monitor)["endpoint"].decode())
        return endpoints


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except zmq.ZMQError as error:
        raise OSError(error.errno, str(error)) from None
