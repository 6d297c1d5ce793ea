"""Two micro-batches in turns over slow links: how much of a delay they hide, with eight expert processes.

    python -m benchmarks.overlap CHECKPOINT [--requests 32] [--delays 0 1 5] [--rounds 3]

A proxy in front of each expert passes every piece on as late as the delay has it, both ways. A step runs as one
micro-batch, as two, or as the head chooses, in turns. At most what the delay adds to a step of one can be hidden.
"""

import argparse
import dataclasses
import itertools
import multiprocessing
import queue
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Protocol

import torch

from actors.environment import use_large_pages
from actors.expert import Expert
from actors.head import Head
from actors.micro_batches import MicroBatches
from actors.replica import Replica
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.specs import ActorSpec
from actors.threads import cores
from actors.transport.channel import ChannelTransport
from actors.transport.channel_server import ChannelServer
from benchmarks.load import median
from benchmarks.processes import begin_again_with, running
from benchmarks.report import publish
from cluster.launch.checks import open_model
from cluster.launch.specs import actor_specs
from cluster.settings.config import load_config
from model.batch import Chunk, NewSequence, SamplingParams, StepPlan, StepResult

_NODE, _PROMPT, _WARM = "here", 64, 12
_WAYS = ("as the head chooses", "one micro-batch", "two")


class Line(Protocol):
    """The delay of a link one way, in seconds, that all processes see."""

    value: float


def delayed(file: str, target: str, line: Line) -> None:
    """Listen at a socket's file and pass everything on to another, and back, each piece as late as the line has it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(file)
    listener.listen()

    def accept() -> None:
        while True:
            caller, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(target)
            for source, sink in ((caller, server), (server, caller)):
                pieces: queue.Queue[tuple[float, bytes]] = queue.Queue()
                threading.Thread(target=read, args=(source, pieces), daemon=True).start()
                threading.Thread(target=write, args=(sink, pieces), daemon=True).start()

    def read(source: socket.socket, pieces: "queue.Queue[tuple[float, bytes]]") -> None:
        while piece := source.recv(1 << 18):
            pieces.put((time.monotonic() + line.value, piece))

    def write(sink: socket.socket, pieces: "queue.Queue[tuple[float, bytes]]") -> None:
        while True:
            due, piece = pieces.get()
            time.sleep(max(0.0, due - time.monotonic()))
            sink.sendall(piece)

    threading.Thread(target=accept, daemon=True).start()


def _expert(told: Connection, spec: ActorSpec, file: str, line: Line | None) -> None:
    torch.set_num_threads(1)
    expert = Expert(spec)
    while not expert.progress().ready:
        time.sleep(0.05)
    address = ChannelServer(expert.answer, _NODE, f"{file}x").address
    if line is not None:
        delayed(file, address.file, line)
        address = dataclasses.replace(address, file=file)
    told.send(address)
    time.sleep(1e6)


@contextmanager
def serving(checkpoint: str, line: Line | None = None) -> Iterator[tuple[Head, ExpertRouter]]:
    """A head in this process and its router, and eight experts in processes of their own, behind a line if there is
    one.
    """
    use_large_pages()
    settings = [f"model.path={checkpoint}", "model.dtype=bfloat16", "kv.memory_bytes=268435456"]
    config = load_config(None, {}, settings)
    head_spec, expert_specs = actor_specs(config, open_model(config).checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [(spec, f"{folder}/{spec.expert}", line) for spec in expert_specs]
        with running(_expert, arguments) as addresses:
            torch.set_num_threads(cores())
            head, transport = Head(head_spec), ChannelTransport(_NODE)
            table = tuple((transport.connect(Replica(e, 0, address=own)),) for e, own in enumerate(addresses))
            router = ExpertRouter(transport, Replicas(table))
            head.connect(router)
            yield head, router


def run(head: Head, requests: int, steps: int, epoch: int) -> tuple[float, float]:
    """Seconds of a step in which all prefill, and the median of steps in which all decode, behind some that warm up."""
    info = head.begin(epoch)
    pages = -(-(_PROMPT + steps + _WARM + 1) // info.page_size)
    admit, chunks = [], []
    for slot in range(requests):
        ids = tuple((31 * slot + 7 * i) % 3000 + 5 for i in range(_PROMPT))
        admit.append(NewSequence(slot, ids, _PROMPT, SamplingParams(temperature=0.0)))
        chunks.append(Chunk(slot, 0, _PROMPT, tuple(range(slot * pages, (slot + 1) * pages)), True))
    times = []
    for step in range(steps + _WARM + 1):
        plan = StepPlan(step, epoch, info.incarnation, (), tuple(admit), tuple(chunks))
        result = head.step(plan)
        assert isinstance(result, StepResult), result
        times.append(result.seconds)
        admit, chunks = [], [Chunk(slot, _PROMPT + step, 1, (), True) for slot in range(requests)]
    return times[0], median(times[-steps:])


def main() -> None:
    """Measure and publish."""
    begin_again_with(OMP_WAIT_POLICY="passive")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 1.0, 5.0], help="one way, ms")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    found: dict[tuple[str, float, int], list[float]] = defaultdict(list)
    line = multiprocessing.get_context("spawn").Value("d", 0.0)
    with serving(arguments.checkpoint, line) as (head, _):
        epoch = 0
        for round_, delay, ways in itertools.product(range(arguments.rounds), arguments.delays, (1, 2, 0)):
            line.value, head.micro_batches = 1e-3 * delay, MicroBatches(ways)
            for steps in (1, 1, 1, 1, 1, 1, 30 if ways else 60):  # the head needs some to learn from
                epoch += 1
                prefill, decode = run(head, arguments.requests, steps, epoch)
            found["prefill", delay, ways].append(prefill)
            found["decode", delay, ways].append(decode)
            text = f"{1e3 * prefill:.0f} and {1e3 * decode:.1f} ms"
            print(f"round {round_ + 1}: {delay:g} ms, {_WAYS[ways]}: {text}", file=sys.stderr)
    rows = []
    for kind, delay in itertools.product(("prefill", "decode"), arguments.delays):
        one, two, chosen = (1e3 * median(found[kind, delay, ways]) for ways in (1, 2, 0))
        added = one - 1e3 * median(found[kind, 0.0, 1]) if 0.0 in arguments.delays else 0.0
        hidden = f"{100 * (one - chosen) / added:.0f} %" if delay and added > 0 else ""
        rows.append([kind, f"{delay:g}", *(f"{t:.1f}" for t in (one, two, chosen)), f"{chosen / one:.2f} x", hidden])
    header = ("step", "ms one way", "one, ms", "two, ms", "chosen, ms", "chosen / one", "hidden of the delay")
    title = f"Micro-batches in turns: {arguments.requests} prompts of {_PROMPT} tokens, then as many decodes"
    publish("overlap", title, header, rows)


if __name__ == "__main__":
    main()
