"""Eight processes that echo: as experts behind the channel, and as bare ZeroMQ sockets."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import zmq

from actors.replica import Address, Replica
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.transport.channel import ChannelTransport
from actors.transport.channel_server import ChannelServer

COUNT = 8
_NODE = "here"


def _channel(file: str, told: Connection) -> None:
    torch.set_num_threads(1)
    told.send(ChannelServer(lambda header, rows: (header, rows), _NODE, file, "127.0.0.1").address)
    time.sleep(1e6)


def _bare(file: str, told: Connection) -> None:
    s: zmq.Socket[bytes] = zmq.Context().socket(zmq.PAIR)
    s.connect(f"ipc://{file}")
    told.send(None)
    while True:
        s.send_multipart(s.recv_multipart(copy=False), copy=False)


@contextmanager
def _processes(work: Callable[[str, Connection], None], folder: Path) -> Iterator[list[Any]]:
    """What each of eight processes says first."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for i in range(COUNT):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(str(folder / str(i)), theirs), daemon=True))
        processes[-1].start()
        pipes.append(ours)
    try:
        yield [pipe.recv() for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


@contextmanager
def channels() -> Iterator[tuple[ExpertRouter, ExpertRouter]]:
    """Routers over the channel: within this machine, and over TCP as to another."""
    with tempfile.TemporaryDirectory() as folder, _processes(_channel, Path(folder)) as addresses:
        yield _router(_NODE, addresses), _router("elsewhere", addresses)


def _router(node_id: str, addresses: list[Address]) -> ExpertRouter:
    transport = ChannelTransport(node_id)
    table = tuple((transport.connect(Replica(e, 0, address=address)),) for e, address in enumerate(addresses))
    return ExpertRouter(transport, Replicas(table))


@contextmanager
def bare_zmq() -> Iterator[Callable[[int], None]]:
    """A fan-out of so many bytes to each over PAIR sockets, one for each process, with nothing around them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        sockets = [stack.enter_context(context.socket(zmq.PAIR)) for _ in range(COUNT)]
        for i, s in enumerate(sockets):
            s.linger = 0
            s.bind(f"ipc://{folder / str(i)}")
        stack.enter_context(_processes(_bare, folder))
        bodies: dict[int, bytearray] = {}

        def fan_out(size: int) -> None:
            body = bodies.setdefault(size, bytearray(size))
            for s in sockets:
                s.send_multipart([b"h", body], copy=False)
            for s in sockets:
                s.recv_multipart(copy=False)

        yield fan_out
