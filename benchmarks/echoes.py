"""Eight processes that echo: as experts behind the channel, and as bare ZeroMQ sockets."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import torch
import zmq

from actors.replica import Address, Replica
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.transport.channel import ChannelTransport
from actors.transport.channel_server import ChannelServer
from benchmarks.processes import running

COUNT = 8
_NODE = "here"


def _channel(told: Connection, file: str) -> None:
    torch.set_num_threads(1)
    told.send(ChannelServer(lambda header, rows: (header, rows), _NODE, file, "127.0.0.1").address)
    time.sleep(1e6)


def _bare(told: Connection, file: str) -> None:
    s: zmq.Socket[bytes] = zmq.Context().socket(zmq.PAIR)
    s.connect(f"ipc://{file}")
    told.send(None)
    while True:
        s.send_multipart(s.recv_multipart(copy=False), copy=False)


def _files(folder: str) -> list[tuple[str]]:
    return [(f"{folder}/{i}",) for i in range(COUNT)]


@contextmanager
def channels() -> Iterator[tuple[ExpertRouter, ExpertRouter]]:
    """Routers over the channel: within this machine, and over TCP as to another."""
    with tempfile.TemporaryDirectory() as folder, running(_channel, _files(folder)) as addresses:
        yield _router(_NODE, addresses), _router("elsewhere", addresses)


def _router(node_id: str, addresses: list[Address]) -> ExpertRouter:
    transport = ChannelTransport(node_id)
    table = tuple((transport.connect(Replica(e, 0, address=address)),) for e, address in enumerate(addresses))
    return ExpertRouter(transport, Replicas(table))


@contextmanager
def bare_zmq() -> Iterator[Callable[[int], None]]:
    """A fan-out of so many bytes to each over PAIR sockets, one for each process, with nothing around them."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        sockets = [stack.enter_context(context.socket(zmq.PAIR)) for _ in range(COUNT)]
        for s, (file,) in zip(sockets, _files(folder), strict=True):
            s.linger = 0
            s.bind(f"ipc://{file}")
        stack.enter_context(running(_bare, _files(folder)))
        bodies: dict[int, bytearray] = {}

        def fan_out(size: int) -> None:
            body = bodies.setdefault(size, bytearray(size))
            for s in sockets:
                s.send_multipart([b"h", body], copy=False)
            for s in sockets:
                s.recv_multipart(copy=False)

        yield fan_out
