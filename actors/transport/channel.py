"""Expert calls over sockets between the head and the experts' processes: a message each way, and Ray not on the way.

Ray still places, starts, ends and restarts experts, and carries their addresses. D: hidden size, R: rows.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.replica import Address, Replica
from actors.transport.channel_server import ID_BYTES
from actors.transport.far import FarLinks
from actors.transport.near import NearLinks
from actors.transport.rows import decode_header, encode_header
from actors.transport.seam import ExpertCall, ExpertReply, header_of
from actors.transport.stream import Received
from model.wire import tensor_bytes, tensor_from

_AGAIN_SECONDS = 0.2  # until a broken connection is opened anew
_LOOK_SECONDS = 0.5  # how often breaks are looked for while nothing comes


class Links(Protocol):
    """Connections of one kind. Each has a name; OSError says that it is broken, or cannot be had."""

    def open(self, endpoint: str, key: bytes) -> int: ...

    def send(self, name: int, head: bytes, rows: memoryview) -> None: ...

    def wait(self, seconds: float) -> list[Received]:
        """Heads and rows that have come, after a wait of at most so long if there are none."""

    def broken(self) -> list[int]:
        """Links that broke since the last time."""

    def drop(self, name: int) -> None:
        """Close a link that is broken, as a `send` has shown."""

    def close(self) -> None: ...


@dataclass(slots=True)
class _Peer:
    """A connection to one expert's process."""

    links: Links
    name: int = 0
    under_way: set[int] = field(default_factory=set)
    again_at: float | None = None  # when it may be opened anew, if it is broken


class ChannelTransport:
    """It implements `actors.transport.seam.ExpertTransport`. A connection that breaks ends its calls with an error at
    once, and is opened anew by the next call to it.
    """

    def __init__(self, node_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`node_id` is that of the caller's machine."""
        self._node_id, self._clock = node_id, clock
        self._near = NearLinks()
        self._far: FarLinks | None = None  # made when there is an expert on another machine
        self._peers: dict[Address, _Peer] = {}
        self._peer_of: dict[int, _Peer] = {}  # by the id of each call under way
        self._ended: deque[ExpertReply] = deque()  # calls that ended before they were waited for

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
                peer.links.send(peer.name, head, tensor_bytes(call.rows_RD))
            except OSError as error:
                self._fail(call.call_id, str(error))
                peer.links.drop(peer.name)
                self._break(peer)
            else:
                peer.under_way.add(call.call_id)
                self._peer_of[call.call_id] = peer

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        waiting, end, left = set(call_ids), self._clock() + timeout, 0.0
        replies: list[ExpertReply] = []
        if not waiting:
            self._wait(0.0)
        while True:
            while self._ended:
                replies.append(self._ended.popleft())
                waiting.discard(replies[-1].call_id)
            if not waiting or left < 0 or (first and len(waiting) < len(call_ids)):
                return replies
            left = end - self._clock()
            self._wait(max(0.0, left))

    def abandon(self, call_ids: Collection[int]) -> None:
        """A stray answer is received like any other."""

    def close(self) -> None:
        self._near.close()
        if self._far is not None:
            self._far.close()

    def _wait(self, seconds: float) -> None:
        """Take what comes, from near or far."""
        seconds = min(seconds, _LOOK_SECONDS)
        if self._far is None:
            self._take(self._near, self._near.wait(seconds))
        else:
            self._take(self._far, self._far.wait(seconds))  # which also ends when something near can be read
            self._take(self._near, self._near.wait(0.0))

    def _take(self, links: Links, received: list[Received]) -> None:
        for head, rows in received:
            call_id = int.from_bytes(head[:ID_BYTES], "little")
            if len(head) == ID_BYTES:
                self._fail(call_id, bytes(rows).decode(errors="replace"))
                continue
            h = decode_header(head[ID_BYTES:])
            rows_RD = tensor_from(rows, 0, h.rows, h.columns, h.dtype_code)
            self._end(ExpertReply(call_id, rows_RD, service_seconds=h.service_ns * 1e-9))
        for name in links.broken():
            for peer in self._peers.values():
                if (peer.links, peer.name) == (links, name) and peer.again_at is None:
                    self._break(peer)

    def _end(self, reply: ExpertReply) -> None:
        peer = self._peer_of.pop(reply.call_id, None)
        if peer is not None:
            peer.under_way.discard(reply.call_id)
        self._ended.append(reply)

    def _fail(self, call_id: int, why: str) -> None:
        self._end(ExpertReply(call_id, None, error=why))

    # ---- connections ----

    def _peer(self, address: Address) -> _Peer | None:
        """The connection to a process, None while it cannot be had."""
        peer = self._peers.get(address)
        if peer is not None:
            if peer.again_at is None:
                return peer
            if self._clock() < peer.again_at:
                return None
        # Without TCP it listens to this machine alone, though as another node of Ray.
        if address.node_id == self._node_id or not address.tcp:
            links: Links = self._near
            endpoint = address.file
        else:
            self._far = links = self._far or FarLinks(beside=self._near.fileno())
            endpoint = address.tcp
        peer = self._peers[address] = _Peer(links)
        try:
            peer.name = links.open(endpoint, address.key)
        except OSError:
            self._break(peer)
            return None
        return peer

    def _break(self, peer: _Peer) -> None:
        peer.again_at = self._clock() + _AGAIN_SECONDS
        for call_id in list(peer.under_way):
            self._fail(call_id, "the connection broke")
