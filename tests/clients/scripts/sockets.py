"""No library at all: bytes on a socket, their framing, and clients that go."""

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.clients.checks import Target, check, holds, run, same

SECONDS = 60.0
FOREVER = {"prompt": "My favourite condiment is", "max_tokens": 1900, "ignore_eos": True}


class Wire:
    """A connection, and what has come on it."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=SECONDS)
        self._come = b""

    def send(self, method: str, path: str, body: object = None, **headers: str) -> "Wire":
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in headers.items())]
        lines += [f"Content-Length: {len(raw)}"] if body is not None else []
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + raw)
        return self

    def until(self, mark: bytes) -> bytes:
        """All up to and with the mark; ConnectionError if the other end is closed before."""
        while mark not in self._come:
            self._more()
        found, _, self._come = self._come.partition(mark)
        return found + mark

    def exactly(self, count: int) -> bytes:
        while len(self._come) < count:
            self._more()
        found, self._come = self._come[:count], self._come[count:]
        return found

    def head(self) -> tuple[int, dict[str, str]]:
        """A status and headers, by their small names."""
        first, *lines = self.until(b"\r\n\r\n").decode("latin-1").rstrip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    def whole(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        return status, headers, self.exactly(int(headers["content-length"]))

    def chunks(self) -> Iterator[bytes]:
        """Of chunked coding, to its end."""
        while size := int(self.until(b"\r\n"), 16):
            yield self.exactly(size)
            same(self.exactly(2), b"\r\n")
        same(self.exactly(2), b"\r\n")

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> None:
        if not (part := self._socket.recv(1 << 16)):
            raise ConnectionError(f"closed after {self._come!r}")
        self._come += part


@contextmanager
def wire_to(address: str) -> Iterator[Wire]:
    wire = Wire(address)
    try:
        yield wire
    finally:
        wire.close()


def running(target: Target) -> tuple[float, float]:
    """Outputs in slots or waiting, and tokens put out so far, as /metrics says."""
    with wire_to(target.http) as wire:
        text = wire.send("GET", "/metrics").whole()[2].decode()
    found = dict(re.findall(r"^eightwinds_(num_requests_\w+|generation_tokens_total) (\S+)$", text, re.MULTILINE))
    busy = float(found["num_requests_running"]) + float(found["num_requests_waiting"])
    return busy, float(found["generation_tokens_total"])


def idle(target: Target) -> float:
    """Wait until nothing runs; the tokens put out so far."""
    end = time.monotonic() + SECONDS
    while True:
        busy, tokens = running(target)
        if not busy:
            return tokens
        holds(time.monotonic() < end, f"{busy:g} outputs are still under way")
        time.sleep(0.01)


@check
def events_are_lines_in_chunks(target: Target) -> None:
    body = {"messages": [{"role": "user", "content": "é\u2028☃"}], "max_tokens": 20, "stream": True}
    with wire_to(target.http) as wire:
        status, headers = wire.send("POST", "/v1/chat/completions", body).head()
        same((status, headers["transfer-encoding"]), (200, "chunked"))
        same(headers["content-type"].split(";")[0], "text/event-stream")
        same((headers["cache-control"], headers["x-accel-buffering"]), ("no-cache", "no"))
        holds(headers["x-request-id"])
        chunks = list(wire.chunks())
        text = b"".join(chunks).decode("ascii")
        same(wire.send("GET", "/health").whole()[0], 200)  # the connection is good for another request
    holds(all(chunk.endswith(b"\n\n") for chunk in chunks), "no event is cut in two")
    *events, done, nothing = text.split("\n\n")
    same((done, nothing, "\r" in text), ("data: [DONE]", "", False))
    objects: list[Any] = [json.loads(event.removeprefix("data: ")) for event in events]
    holds(all(event.startswith("data: {") and "\n" not in event for event in events))
    same({found["object"] for found in objects}, {"chat.completion.chunk"})
    holds(all(isinstance(found["choices"], list) for found in objects))


@check
def a_stream_that_waits_is_kept_alive_by_comments_which_are_no_pings(target: Target) -> None:
    authorized = {"Authorization": f"Bearer {target.token}"}
    with wire_to(target.narrow) as first, wire_to(target.narrow) as second:
        first.send("POST", "/v1/completions", FOREVER | {"stream": True, "n": 8}, **authorized).until(b"data: {")
        second.send("POST", "/v1/completions", FOREVER | {"stream": True}, **authorized)
        same(second.head()[0], 200)
        begin = time.monotonic()
        words = next(second.chunks())
        waited = time.monotonic() - begin
    same(words.split(b"\n\n")[0][:7] if waited < 11.0 else words, b"data: {" if waited < 11.0 else b": keep-alive\n\n")


@check
def a_stream_that_is_left_ends_within_a_step(target: Target) -> None:
    for number in range(5):
        before = idle(target)
        with wire_to(target.http) as wire:
            wire.send("POST", "/v1/completions", FOREVER | {"stream": True, "seed": number})
            for _ in range(3):
                wire.until(b"\n\n")
        after = idle(target) - before
        holds(after < 300, f"{after:g} tokens of 1,900 were put out for nobody")


@check
def a_whole_answer_that_nobody_waits_for_ends_too(target: Target) -> None:
    before = idle(target)
    with wire_to(target.http) as wire:
        wire.send("POST", "/v1/completions", FOREVER)
        while not running(target)[0]:
            time.sleep(0.005)
    holds(idle(target) - before < 1000, "it was put out for nobody")


@check
def a_connection_that_is_reset_ends_it_as_well(target: Target) -> None:
    wire = Wire(target.http)
    wire.send("POST", "/v1/completions", FOREVER | {"stream": True}).until(b"data: {")
    wire._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    wire.close()
    idle(target)


@check
def heads_and_the_root_answer(target: Target) -> None:
    with wire_to(target.http) as wire:
        for path in ("/", "/v1/models", "/health"):
            status, headers = wire.send("HEAD", path).head()
            same(status, 200)
        same(wire.send("GET", "/").whole()[0], 200)
        status, headers, raw = wire.send("GET", "/nowhere").whole()
        same((status, headers["content-type"], list(json.loads(raw))), (404, "application/json", ["error"]))
        same(wire.send("GET", "/v1/completions").whole()[0], 405)


@check
def requests_may_follow_each_other_without_waiting(target: Target) -> None:
    body = {"prompt": "One", "max_tokens": 2, "temperature": 0}
    with wire_to(target.http) as wire:
        for _ in range(3):
            wire.send("POST", "/v1/completions/", body)
        wire.send("POST", "/v1/completions", body | {"stream": True}).send("GET", "/v1/models")
        texts = [json.loads(wire.whole()[2])["choices"][0]["text"] for _ in range(3)]
        same(len(set(texts)), 1)
        same(wire.head()[0], 200)
        streamed = b"".join(wire.chunks()).decode()
        same(streamed.count("data: "), 3)
        same(wire.whole()[0], 200)


@check
def a_body_may_come_in_chunks(target: Target) -> None:
    raw = json.dumps({"prompt": "One", "max_tokens": 1}).encode()
    with wire_to(target.http) as wire:
        wire.send("POST", "/v1/completions", None, **{"Transfer-Encoding": "chunked"})
        for part in (raw[:7], raw[7:], b""):
            wire._socket.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        same(wire.whole()[0], 200)


@check
def what_is_no_json_is_told_so(target: Target) -> None:
    for raw in (b"", b"{", b"[]", b"\xff", b'{"prompt": "\\ud800"}'):
        with wire_to(target.http) as wire:
            status, _, told = wire.send("POST", "/v1/completions", raw).whole()
        same((status, set(json.loads(told)["error"])), (400, {"message", "type", "param", "code"}))


if __name__ == "__main__":
    sys.exit(run())
