"""What a stranger may cost on the gRPC port: frames by hand against a gateway of this process."""

import contextlib
import queue
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc import StatusCode

from cluster.client.messages import text_request
from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import ApiError, ErrorKind
from cluster.gateway.places import Places
from cluster.gateway.rpc.limits import channel_options
from cluster.settings.config import load_config
from cluster.settings.request_options import Options
from cluster.settings.sections import LimitsSection
from cluster.settings.tokens import Scope, TokenFile, append, new_token
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.abuse import wire
from tests.abuse.wire import Connection, frame
from tests.engines import engine_bounds
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Serving, failure

REFUSED_STREAM = b"\x00\x00\x00\x07"
REQUEST = text_request("My favourite", Options(max_tokens=2, ignore_eos=True))
Open = Callable[..., Serving]


@pytest.fixture
def open_server(demo: ServedModel, tmp_path: Path) -> Iterator[Open]:
    """Starts servers with these limits; with `guarded` they ask for a token."""
    servers: list[Serving] = []

    def opened(guarded: bool = False, head: FakeHead | None = None, queued: int = 64, **limits: float) -> Serving:
        tokens = None
        if guarded:
            append(tmp_path / "tokens", new_token("alice", [Scope.INFERENCE])[1])
            tokens = TokenFile(tmp_path / "tokens")
        server = Serving(demo, tokens=tokens, limits=LimitsSection(**limits))  # type: ignore[arg-type]  # by field name
        servers.append(server.ready(head or FakeHead(), engine_bounds(64, 256, queued)))
        return server

    yield opened
    for server in servers:
        server.close()


@contextlib.contextmanager
def stranger(server: Serving, acknowledge: bool = True) -> Iterator[Connection]:
    connection = Connection(server.address, acknowledge)
    try:
        yield connection
    finally:
        connection.close()


def kinds(connection: Connection, seconds: float = 0.5) -> list[int]:
    return [kind for kind, *_ in connection.frames(seconds)]


def call(connection: Connection, path: str = wire.GENERATE) -> bytes:
    return frame(wire.HEADERS, wire.END_HEADERS, connection.next_stream(), wire.request_head(path))


def test_a_connection_has_so_many_calls_and_more_are_refused_without_a_handler(open_server: Open) -> None:
    server = open_server(streams=4)
    with stranger(server) as connection:
        assert next(kind for kind, *_ in connection.frames(5.0)) == wire.SETTINGS
        connection.send(b"".join(call(connection) for _ in range(7)))
        resets = [payload for kind, _, _, payload in connection.frames(0.3) if kind == wire.RST_STREAM]
    assert resets == [REFUSED_STREAM] * 3


def test_a_full_queue_refuses_with_a_reason_before_a_connection_has_too_many_calls(open_server: Open) -> None:
    head = FakeHead()
    server = open_server(head=head, queued=256)
    head.hold()
    calls = [server.client.stub.Generate.future(REQUEST) for _ in range(64 + 256 + 40)]
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for sent in calls:
        sent.add_done_callback(ended.put)
    refused = [ended.get(timeout=PATIENCE) for _ in range(40)]
    head.let_go()
    assert {told.code() for told in refused} == {StatusCode.RESOURCE_EXHAUSTED}
    assert {sent.code() for sent in calls} == {StatusCode.OK, StatusCode.RESOURCE_EXHAUSTED}


def test_calls_that_are_reset_at_once_disturb_nobody(open_server: Open) -> None:
    server = open_server(guarded=False)
    cancel = b"\x00\x00\x00\x08"
    with stranger(server) as connection:
        for _ in range(20):
            streams = [connection.next_stream() for _ in range(200)]
            head = wire.request_head(wire.GENERATE)
            connection.send(
                b"".join(
                    frame(wire.HEADERS, wire.END_HEADERS, s, head) + frame(wire.RST_STREAM, 0, s, cancel)
                    for s in streams
                )
            )
            assert server.client.generate(REQUEST, timeout=PATIENCE).usage.completion_tokens == 2
    server.idle()


def test_there_are_so_many_connections(open_server: Open) -> None:
    server = open_server(connections=4)  # the test's own channel is not connected yet
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(stranger(server)) for _ in range(7)]
        welcomed = [wire.SETTINGS in kinds(connection, 0.2) for connection in taken]
    assert welcomed == [True] * 4 + [False] * 3


def test_who_does_not_say_what_is_needed_is_shut_out(open_server: Open) -> None:
    server = open_server(settings_s=0.2)
    with stranger(server, acknowledge=False) as connection:
        assert wire.GOAWAY in kinds(connection, PATIENCE), "settings that are not acknowledged do not bind"
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as silent:
        while silent.recv(1000):
            pass  # and then it is closed


def test_without_a_token_a_message_is_not_even_taken_in(open_server: Open) -> None:
    server = open_server(guarded=True)
    with stranger(server) as connection:
        stream = connection.next_stream()
        head = frame(wire.HEADERS, wire.END_HEADERS, stream, wire.request_head(wire.GENERATE))
        connection.send(head + frame(wire.DATA, 0, stream, b"\0" + (900_000).to_bytes(4, "big")))  # and no more
        ended = [(kind, flags & wire.END_STREAM) for kind, flags, of, _ in connection.frames(0.5) if of == stream]
    assert (wire.HEADERS, wire.END_STREAM) in ended, "the answer comes before the message"
    assert wire.WINDOW_UPDATE not in [kind for kind, _ in ended], "nobody asks for the rest of it"
    assert server.gateway.refusals.counts["TOKEN_MISSING"] == 1


def test_an_unfinished_message_has_its_time(open_server: Open) -> None:
    server = open_server(upload_s=0.1)
    with stranger(server) as connection:
        stream = connection.next_stream()
        connection.send(frame(wire.HEADERS, wire.END_HEADERS, stream, wire.request_head(wire.STREAM)))
        assert wire.HEADERS in kinds(connection), "the answer is a status"
    assert server.gateway.refusals.counts["MESSAGE_TOO_SLOW"] == 1


def test_unfinished_messages_make_room_for_finished_ones(open_server: Open) -> None:
    server = open_server(uploads=2)
    with stranger(server) as connection:
        connection.send(b"".join(call(connection) for _ in range(20)))
        assert server.client.generate(REQUEST, timeout=PATIENCE).usage.completion_tokens == 2


def test_header_lists_that_expand_are_refused_and_forgotten(open_server: Open) -> None:
    """4,000 bytes in the table, named 300 times by one byte each: 1.2 MB a call, unless it is cut short."""
    server, process = open_server(guarded=True), psutil.Process()
    before = process.memory_info().rss
    with stranger(server, acknowledge=False) as connection:
        once = wire.literal("x-a", b"v" * 4000, indexed=True)
        for number in range(600):
            block = wire.request_head(wire.GENERATE) + (b"" if number else once) + wire.again(300)
            connection.send(frame(wire.HEADERS, wire.END_HEADERS, connection.next_stream(), block))
    failed = failure(lambda: server.client.generate(REQUEST, timeout=PATIENCE))
    assert failed.reason == "TOKEN_MISSING", "the server answers as before"
    assert process.memory_info().rss - before < 200 << 20, "600 calls of 1.2 MB would be 720 MB"


def test_calls_over_all_connections_are_bounded_and_told_so(open_server: Open) -> None:
    head = FakeHead()
    server = open_server(head=head, calls=2)
    head.hold()
    running = [server.client.stub.Generate.future(REQUEST) for _ in range(2)]
    head.wait_for_plan()
    told = failure(lambda: [server.client.generate(REQUEST, timeout=PATIENCE) for _ in range(3)])
    assert (told.code, told.reason) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    assert told.retry_seconds == 1.0
    head.let_go()
    assert all(call.result(PATIENCE).usage.completion_tokens == 2 for call in running)
    assert server.client.generate(REQUEST, timeout=PATIENCE).usage.completion_tokens == 2


def test_a_client_may_ping_while_a_call_lasts(open_server: Open) -> None:
    head = FakeHead()
    server = open_server(head=head, ping_interval_s=0.05)
    head.hold()
    running = server.client.stub.Generate.future(REQUEST)
    head.wait_for_plan()
    with stranger(server) as connection:
        connection.send(call(connection))
        for _ in range(8):
            connection.send(frame(wire.PING, 0, 0, b"12345678"))
            seen = kinds(connection, 0.1)
            assert wire.PING in seen and wire.GOAWAY not in seen
        connection.send(frame(wire.PING, 0, 0, b"12345678") * 20)
        assert wire.GOAWAY in kinds(connection), "a flood of them ends the connection"
    head.let_go()
    assert running.result(PATIENCE).usage.completion_tokens == 2
    assert dict(channel_options(LimitsSection(), 1))["grpc.http2.min_ping_interval_without_data_ms"] < 3000


def test_a_message_of_too_many_fields_is_refused_before_it_is_parsed(open_server: Open) -> None:
    server = open_server(message_fields=1000)
    chat = pb.Chat(messages=[pb.ChatMessage()] * 2000)
    told = failure(lambda: server.client.generate(pb.GenerateRequest(prompt=pb.Prompt(chat=chat))))
    assert (told.code, told.reason) == (StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert "at most 1000" in told.text


def test_a_chat_has_so_many_messages(open_server: Open) -> None:
    server = open_server()
    chat = pb.Chat(messages=[pb.ChatMessage(role=pb.ROLE_USER)] * 5000)
    told = failure(lambda: server.client.stub.Tokenize(pb.TokenizeRequest(prompt=pb.Prompt(chat=chat))))
    assert told.fields == ["prompt.chat"] or "at most 4096" in told.text


def test_a_call_without_a_message_is_told_so(open_server: Open) -> None:
    server = open_server()
    method = server.channel.stream_unary(wire.GENERATE)
    told = failure(lambda: method(iter(()), timeout=PATIENCE))
    assert (told.code, told.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


def test_places_are_given_back_whatever_happens() -> None:
    places = Places(1, "TOO_MANY_CALLS", "calls")
    with pytest.raises(KeyError), places:
        raise KeyError
    with places, pytest.raises(ApiError) as caught, places:
        pass
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert places.taken == 0


def test_every_limit_is_a_key_with_a_default() -> None:
    config = load_config(None, {"EIGHTWINDS_LIMITS__STREAMS": "7"}, ["limits.connections=3"])
    options = dict(channel_options(config.limits, 1 << 20))
    assert (options["grpc.max_concurrent_streams"], options["grpc.max_allowed_incoming_connections"]) == (7, 3)
    with pytest.raises(ValueError, match=r"did you mean limits\.streams"):
        load_config(None, {}, ["limits.stream=3"])
