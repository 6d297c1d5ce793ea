"""What strangers do without a token, and what a tenant called mallory does with one, each for so many seconds at most."""

import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import grpc
from google.protobuf.message import Message

from protos.eightwinds.v1 import inference_pb2 as pb
from tests.abuse import wire
from tests.abuse.wire import Connection, frame


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is: HOST:PORT of its gRPC and of its HTTP; and mallory's token, which strangers do not use."""

    address: str
    http: str
    token: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of mallory's calls."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


_CANCEL = b"\x00\x00\x00\x08"
Metadata = tuple[tuple[str, str], ...]
Abuse = Callable[[Target, float], str]  # the server, for how many seconds; what was done


def _until(seconds: float) -> Iterator[int]:
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield number
        number += 1


def resets(server: Target, seconds: float) -> str:
    """Bursts of 200 calls that are reset at once."""
    connection, sent, closed = Connection(server.address), 0, 0
    head = wire.request_head(wire.GENERATE)
    for _ in _until(seconds):
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
    for _ in _until(seconds):
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
    for _ in _until(seconds):
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
    for number in _until(seconds):
        if len(half) < 1500:
            with contextlib.suppress(OSError):
                half.append(socket.create_connection((host, int(port)), timeout=1.0))
                half[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
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
    for _ in _until(seconds):
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


def refused_calls(server: Target, seconds: float) -> str:
    """Calls of a model that there is not, one after the other."""
    return _calls(server, seconds, pb.TokenizeRequest(model="none"))


def detokenizing(server: Target, seconds: float) -> str:
    """Detokenize of 4 MB, again and again."""
    return _calls(server, seconds, pb.DetokenizeRequest(token_ids=[300] * ((2 << 20) - 100)))


def tokenizing(server: Target, seconds: float) -> str:
    """Tokenize of 4 MB, six at a time."""
    return _calls(server, seconds, pb.TokenizeRequest(prompt=pb.Prompt(text="hello world " * 340_000)), at_once=6)


def empty_chat_messages(server: Target, seconds: float) -> str:
    """A million empty chat messages in one request."""
    chat = pb.Chat(messages=[pb.ChatMessage()] * 1_000_000)
    return _calls(server, seconds, pb.GenerateRequest(prompt=pb.Prompt(chat=chat)))


def costly_schemas(server: Target, seconds: float) -> str:
    """Schemas of twenty patterns that must all fit, six at a time, and no two alike."""
    requests = []
    for number in range(600):
        patterns = [{"pattern": f"^[a-z]{{{i},{number + 9}}}.*{i}x{number}"} for i in range(1, 21)]
        schema = json.dumps({"type": "string", "allOf": patterns})
        constraint, prompt = pb.Constraint(json_schema=schema), pb.Prompt(text="a")
        requests.append(pb.GenerateRequest(prompt=prompt, constraint=constraint))
    return _calls(server, seconds, *requests, at_once=6)


def filling_the_slots(server: Target, seconds: float) -> str:
    """Sixty-four outputs as long as may be, and new ones for those that end."""
    prompt, stopping = pb.Prompt(text="Once upon"), pb.Stopping(max_tokens=2000, ignore_eos=True)
    return _calls(server, seconds, pb.GenerateRequest(prompt=prompt, stopping=stopping, n=8), at_once=8)


def load_watches(server: Target, seconds: float) -> str:
    """Two hundred watches of every expert's load, which nobody reads."""
    kept, codes = list[Any](), Counter[str]()
    with grpc.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)]) as channel:
        method: Any = channel.unary_stream("/eightwinds.v1.ClusterService/WatchExpertLoad")
        for _ in _until(seconds):
            kept += [method(b"", metadata=server.metadata) for _ in range(200 - len(kept))]
            time.sleep(0.5)
            for call in [call for call in kept if not call.is_active()]:
                codes[call.code().name] += 1
                kept.remove(call)
        for call in kept:
            call.cancel()
    return f"{len(kept)} held, {_counts(codes)}"


def everything(server: Target, seconds: float) -> str:
    """All of the others at the same time, on threads of one process: about a core of work for whoever sends it."""
    others = [abuse for name, abuse in ABUSES.items() if abuse is not everything]
    with ThreadPoolExecutor(len(others)) as pool:
        done = list(pool.map(lambda abuse: abuse(server, seconds), others))
    return "; ".join(done)


def _calls(server: Target, seconds: float, *requests: Message, at_once: int = 1) -> str:
    """One request after the other, round and round, so many at a time."""
    name = type(requests[0]).__name__.removesuffix("Request")
    raw, codes = cycle([request.SerializeToString() for request in requests]), Counter[str]()
    with grpc.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)]) as channel:
        method: Any = channel.unary_unary(f"/eightwinds.v1.InferenceService/{name}")
        for _ in _until(seconds):
            for call in [method.future(next(raw), timeout=20.0, metadata=server.metadata) for _ in range(at_once)]:
                codes[call.code().name] += 1
    return _counts(codes)


def _counts(codes: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(codes.items())) or "none ended"


ABUSES: dict[str, Abuse] = {
    "resets": resets,
    "expanding-headers": expanding_headers,
    "unfinished-messages": unfinished_messages,
    "unfinished-messages-with-a-token": unfinished_messages_with_a_token,
    "half-requests": half_requests,
    "health-watches": health_watches,
    "refused-calls": refused_calls,
    "detokenizing": detokenizing,
    "tokenizing": tokenizing,
    "empty-chat-messages": empty_chat_messages,
    "costly-schemas": costly_schemas,
    "filling-the-slots": filling_the_slots,
    "load-watches": load_watches,
    "everything": everything,
}


def stranger_main(name: str, target: Target, seconds: float, answer: Any) -> None:
    """Be a stranger in a process of one's own: says in the queue `answer` that it has begun, and then what it did."""
    answer.put("begun")
    answer.put(ABUSES[name](target, seconds))
