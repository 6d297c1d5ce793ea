"""The direct channel: calls over real sockets to experts that run in this process."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import zmq

from actors.replica import Address, Replica
from actors.transport import channel_server
from actors.transport.channel import ChannelTransport
from actors.transport.channel_server import ChannelServer
from actors.transport.rows import RowsHeader
from actors.transport.seam import ExpertCall, ExpertReply
from model.wire import DTYPE_CODES

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")

HERE, ELSEWHERE = "node-a", "node-b"
PATIENCE = 20.0

Serve = Callable[..., ChannelServer]
Connect = Callable[[str], ChannelTransport]


def echo(header: RowsHeader, rows: memoryview) -> tuple[RowsHeader, memoryview]:
    return replace(header, service_ns=5_000), rows


def refuse(header: RowsHeader, rows: memoryview) -> tuple[RowsHeader, memoryview]:
    raise ValueError("no such layer")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[ChannelServer] = []

    def start(answer: object = echo, file: str = "e", host: str = "127.0.0.1") -> ChannelServer:
        servers.append(ChannelServer(answer, HERE, str(tmp_path / file), host))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[ChannelTransport] = []

    def make(node_id: str = HERE) -> ChannelTransport:
        made.append(ChannelTransport(node_id))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


def replica(transport: ChannelTransport, address: Address, expert: int = 0) -> Replica:
    return transport.connect(Replica(expert, 0, address=address))


def ask(transport: ChannelTransport, to: Replica, rows_RD: torch.Tensor, call_id: int = 7) -> ExpertReply:
    transport.submit([ExpertCall(call_id, 3, to, rows_RD)])
    (reply,) = transport.poll(PATIENCE, [call_id])
    assert reply.call_id == call_id
    return reply


@pytest.mark.parametrize("node_id", [HERE, ELSEWHERE])
@pytest.mark.parametrize("dtype", list(DTYPE_CODES), ids=str)
@pytest.mark.parametrize("rows", [1, 3, 700])
def test_rows_come_back_bit_for_bit(
    serve: Serve, connect: Connect, node_id: str, dtype: torch.dtype, rows: int
) -> None:
    transport = connect(node_id)
    sent = torch.randn(rows, 256).to(dtype)
    reply = ask(transport, replica(transport, serve().address), sent)
    assert reply.rows_RD is not None and torch.equal(reply.rows_RD, sent)
    assert reply.service_seconds == pytest.approx(5e-6)


def test_each_answer_finds_its_call(serve: Serve, connect: Connect) -> None:
    transport = connect(HERE)
    there = [replica(transport, serve(file=str(e)).address, e) for e in range(3)]
    calls = [ExpertCall(i, 0, there[i % 3], torch.full((1, 8), float(i))) for i in range(30)]
    transport.submit(calls)
    replies = {reply.call_id: reply.rows_RD for reply in transport.poll(PATIENCE, range(30))}
    assert sorted(replies) == list(range(30))
    assert all(rows is not None and rows[0, 0] == call_id for call_id, rows in replies.items())


def test_an_expert_that_refuses_says_why(serve: Serve, connect: Connect) -> None:
    transport = connect(HERE)
    reply = ask(transport, replica(transport, serve(refuse).address), torch.zeros(1, 8))
    assert (reply.rows_RD, reply.error) == (None, "ValueError: no such layer")


@pytest.mark.parametrize("node_id", [HERE, ELSEWHERE])
def test_calls_to_a_process_that_ends_end_at_once_and_others_go_on(
    serve: Serve, connect: Connect, node_id: str
) -> None:
    class Stuck:
        def __call__(self, header: RowsHeader, rows: memoryview) -> tuple[RowsHeader, memoryview]:
            time.sleep(0.3)  # the thread is in here while the server ends, and ZeroMQ tells nobody that it begins to
            return header, rows

    transport = connect(node_id)
    stuck, well = serve(Stuck(), "s"), serve(echo, "w")
    dying, living = replica(transport, stuck.address), replica(transport, well.address, 1)
    transport.submit([ExpertCall(i, 0, dying, torch.zeros(1, 8)) for i in (1, 2)])
    transport.submit([ExpertCall(3, 0, living, torch.zeros(1, 8))])
    stuck.close()
    replies = {reply.call_id: reply for reply in transport.poll(PATIENCE, [1, 2, 3])}
    assert sorted(replies) == [1, 2, 3]
    assert replies[3].rows_RD is not None
    assert replies[2].rows_RD is None and "connection" in replies[2].error


def test_a_broken_connection_is_opened_anew_but_not_at_once(serve: Serve) -> None:
    now = 0.0
    transport = ChannelTransport(HERE, clock=lambda: now)
    first = serve(host="")
    there = replica(transport, first.address)
    assert ask(transport, there, torch.zeros(1, 8)).rows_RD is not None
    first.close()
    assert ask(transport, there, torch.zeros(1, 8)).rows_RD is None
    assert serve(host="").address == first.address
    assert ask(transport, there, torch.zeros(1, 8)).error == "no connection"
    now = 1.0
    assert ask(transport, there, torch.zeros(1, 8)).rows_RD is not None
    transport.close()


def test_a_wrong_key_opens_nothing(serve: Serve, connect: Connect) -> None:
    transport = connect(ELSEWHERE)
    right = serve().address
    wrong = replace(right, key=zmq.curve_keypair()[0])
    transport.submit([ExpertCall(1, 0, replica(transport, wrong), torch.zeros(1, 8))])
    (reply,) = transport.poll(PATIENCE, [1])
    assert reply.rows_RD is None


def test_one_that_listens_to_this_machine_alone_is_near_though_another_node_of_ray(
    serve: Serve, connect: Connect
) -> None:
    transport, rows_RD = connect(ELSEWHERE), torch.ones(1, 8)
    address = serve(host="").address
    reply = ask(transport, replica(transport, address), rows_RD)
    assert reply.rows_RD is not None and torch.equal(reply.rows_RD, rows_RD)
    of_another_machine = replica(transport, replace(address, file=f"{address.file}-not-here"), 1)
    reply = ask(transport, of_another_machine, rows_RD)
    assert (reply.rows_RD, reply.error) == (None, "no connection")


def test_the_first_of_two_is_enough(serve: Serve, connect: Connect) -> None:
    other_came = threading.Event()

    def slow(header: RowsHeader, rows: memoryview) -> tuple[RowsHeader, memoryview]:
        assert other_came.wait(PATIENCE)
        return header, rows

    transport = connect(HERE)
    late, prompt = replica(transport, serve(slow, "s").address), replica(transport, serve(echo, "f").address)
    transport.submit([ExpertCall(1, 0, late, torch.zeros(1, 8)), ExpertCall(2, 0, prompt, torch.zeros(1, 8))])
    assert [reply.call_id for reply in transport.poll(PATIENCE, [1, 2], first=True)] == [2]
    other_came.set()
    transport.abandon([1])
    assert [reply.call_id for reply in transport.poll(PATIENCE, [1])] == [1], "a stray is told, too"


def test_waiting_ends_after_its_time(serve: Serve, connect: Connect) -> None:
    transport = connect(HERE)
    assert transport.poll(0.01, [1]) == []


def test_another_user_of_the_machine_gets_nothing(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_server, "_user_of", lambda connection: os.getuid() + 1)
    transport = connect(HERE)
    reply = ask(transport, replica(transport, serve(host="").address), torch.zeros(1, 8))
    assert reply.rows_RD is None and reply.error


def test_many_large_calls_at_once_come_back_whole(serve: Serve, connect: Connect) -> None:
    """More than sockets hold, both ways."""
    transport = connect(HERE)
    there = [replica(transport, serve(file=str(e), host="").address, e) for e in range(3)]
    sent = {i: torch.randn(600, 512) for i in range(12)}
    transport.submit([ExpertCall(i, 0, there[i % 3], rows) for i, rows in sent.items()])
    replies = {reply.call_id: reply.rows_RD for reply in transport.poll(PATIENCE, list(sent))}
    assert all(rows is not None and torch.equal(rows, sent[i]) for i, rows in replies.items()) and len(replies) == 12


def test_near_and_far_are_waited_for_together(serve: Serve, connect: Connect) -> None:
    transport = connect(HERE)
    near = replica(transport, serve(file="n").address)
    far = replica(transport, replace(serve(file="f").address, node_id=ELSEWHERE), 1)
    for round_ in range(5):
        calls = [ExpertCall(10 * round_ + i, 0, (near, far)[i % 2], torch.ones(2, 8)) for i in range(6)]
        transport.submit(calls)
        replies = transport.poll(PATIENCE, [call.call_id for call in calls])
        assert len(replies) == 6 and all(reply.rows_RD is not None for reply in replies)


def test_strays_are_taken_when_nothing_is_waited_for(serve: Serve, connect: Connect) -> None:
    transport = connect(HERE)
    there = replica(transport, serve(host="").address)
    transport.submit([ExpertCall(1, 0, there, torch.zeros(1, 8))])
    transport.abandon([1])
    end = time.monotonic() + PATIENCE
    while not (replies := transport.poll(0.0, ())) and time.monotonic() < end:
        pass
    assert [reply.call_id for reply in replies] == [1]
