"""Expert calls over sockets between the head and the experts' processes: a message each way, and Ray not on the way.

Ray still places, starts, ends and restarts experts, and carries their addresses. D: hidden size, R: rows.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import zmq
from zmq.utils.monitor import recv_monitor_message

from actors.replica import Address, Replica
from actors.transport.channel_server import ID_BYTES
from actors.transport.rows import decode_header, encode_header
from actors.transport.seam import ExpertCall, ExpertReply, header_of
from model.wire import tensor_bytes, tensor_from

_AGAIN_SECONDS = 0.2  # until a broken connection is opened anew
_HEARTBEAT_MS, _SILENCE_MS = 1000, 5000  # a machine that went away closes no connection
_BROKEN = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_BROKEN |= zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


@dataclass(slots=True)
class _Peer:
    """A connection to one expert's process; `name` is how the socket knows it."""

    name: bytes
    endpoint: str
    under_way: set[int] = field(default_factory=set)
    again_at: float | None = None  # when it may be opened anew, if it is broken


class ChannelTransport:
    """One ROUTER socket with a connection to each process. It implements `actors.transport.seam.ExpertTransport`.

    A connection that breaks ends its calls with an error at once, and is opened anew by the next call to it.
    """

    def __init__(self, node_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`node_id` is that of the caller's machine."""
        self._node_id, self._clock = node_id, clock
        s: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket = s
        s.router_mandatory, s.reconnect_ivl = True, -1  # a lost peer is an error; it is opened anew by name
        s.linger = s.sndhwm = s.rcvhwm = 0
        s.connect_timeout = s.handshake_ivl = s.heartbeat_timeout = _SILENCE_MS
        s.heartbeat_ivl = _HEARTBEAT_MS
        self._keys = zmq.curve_keypair()
        self._monitor = s.get_monitor_socket(_BROKEN)
        self._poller = zmq.Poller()
        for socket in (s, self._monitor):
            self._poller.register(socket, zmq.POLLIN)
        self._peers: dict[Address, _Peer] = {}
        self._peer_of: dict[int, _Peer] = {}  # by the id of each call under way
        self._ended: deque[ExpertReply] = deque()  # calls that ended before they were waited for
        self._names = 0

    def connect(self, replica: Replica) -> Replica:
        return replace(replica, endpoint=replica.address)

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        """A call that cannot be sent ends with an error."""
        for call in calls:
            peer = self._peer(call.replica.endpoint)
            if peer is None:
                self._fail(call.call_id, "no connection")
                continue
            head = call.call_id.to_bytes(ID_BYTES, "little") + encode_header(header_of(call))
            try:
                self._socket.send_multipart([peer.name, head, tensor_bytes(call.rows_RD)], copy=False)
            except zmq.ZMQError as error:
                self._fail(call.call_id, str(error))
                self._break(peer)
            else:
                peer.under_way.add(call.call_id)
                self._peer_of[call.call_id] = peer

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        waiting, end = set(call_ids), self._clock() + timeout
        replies: list[ExpertReply] = []
        while True:
            self._receive()
            while self._ended:
                replies.append(self._ended.popleft())
                waiting.discard(replies[-1].call_id)
            left = end - self._clock()
            if not waiting or left <= 0 or (first and len(waiting) < len(call_ids)):
                return replies
            for socket, _ in self._poller.poll(ceil(left * 1000)):
                if socket is self._monitor:
                    self._look_for_breaks()

    def abandon(self, call_ids: Collection[int]) -> None:
        """A stray answer is received like any other."""

    def close(self) -> None:
        self._socket.disable_monitor()
        self._socket.close()

    def _receive(self) -> None:
        while True:
            try:
                _, head, rows = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            header = head.bytes
            call_id = int.from_bytes(header[:ID_BYTES], "little")
            if len(header) == ID_BYTES:
                self._fail(call_id, bytes(rows.buffer).decode(errors="replace"))
                continue
            h = decode_header(header[ID_BYTES:])
            rows_RD = tensor_from(rows.buffer, 0, h.rows, h.columns, h.dtype_code)
            self._end(ExpertReply(call_id, rows_RD, service_seconds=h.service_ns * 1e-9))

    def _end(self, reply: ExpertReply) -> None:
        peer = self._peer_of.pop(reply.call_id, None)
        if peer is not None:
            peer.under_way.discard(reply.call_id)
        self._ended.append(reply)

    def _fail(self, call_id: int, why: str) -> None:
        self._end(ExpertReply(call_id, None, error=why))

    # ---- connections ----

    def _peer(self, address: Address | None) -> _Peer | None:
        """The connection to a process, None while it cannot be had."""
        if address is None:
            return None
        peer = self._peers.get(address)
        if peer is not None and peer.again_at is None:
            return peer
        if peer is not None and peer.again_at is not None and self._clock() < peer.again_at:
            return None
        endpoint = address.endpoint(self._node_id)
        if not endpoint:
            return None
        self._look_for_breaks()  # what is still told of the old connection must not end the new one
        self._names += 1
        peer = self._peers[address] = _Peer(self._names.to_bytes(4, "little"), endpoint)
        s = self._socket  # its options count for the connections that are opened after they were set
        s.setsockopt(zmq.CONNECT_ROUTING_ID, peer.name)
        if endpoint == address.ipc:
            s.curve_server = False  # no keys: the socket's file is its owner's
        else:
            s.curve_serverkey, (s.curve_publickey, s.curve_secretkey) = address.key, self._keys
        s.connect(endpoint)
        return peer

    def _look_for_breaks(self) -> None:
        while self._monitor.poll(0):
            endpoint = recv_monitor_message(self._monitor)["endpoint"].decode()
            for peer in self._peers.values():
                if peer.endpoint == endpoint and peer.again_at is None:
                    self._break(peer)

    def _break(self, peer: _Peer) -> None:
        peer.again_at = self._clock() + _AGAIN_SECONDS
        for call_id in list(peer.under_way):
            self._fail(call_id, "the connection broke")
