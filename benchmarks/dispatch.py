"""The cost of one layer's dispatch: over Ray, naive and ours; over sockets, bare and ours; and in one process.

    python -m benchmarks.dispatch [--rounds 8]

Experts only echo, so that nothing but dispatch is measured: gate result in, grouped rows out, eight calls, rows back,
combined. All run interleaved, a few fan-outs of each in turn, so that a noisy neighbour disturbs all alike. The naive
one (benchmarks/naive.py) has a Ray of its own with Ray's defaults; ours runs in the Ray that `eightwinds serve` starts.
Bare ZeroMQ is eight PAIR sockets over ipc://; the channel's TCP is encrypted, as between machines. "rows" are tokens
of the batch with top-2, hidden 4096 in bf16; each expert gets a quarter of them, so that 8 rows make calls of 16 KiB
and 128 rows calls of 256 KiB.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.charts import Point, lines
from benchmarks.echoes import bare_zmq, channels
from benchmarks.report import publish
from cluster.launch.local_ray import daemon
from model.routing import Dispatch

if TYPE_CHECKING:
    from actors.routing.router import ExpertRouter

EXPERTS, TOP_K, HIDDEN = 8, 2, 4096
ROWS = (1, 8, 32, 128, 512)
BURST = 20  # fan-outs of one kind before the next kind's turn
_SHOWN = {
    "naive": "naive Ray",
    "refs": "object refs",
    "bare": "bare ZeroMQ",
    "near": "channel",
    "far": "over TCP",
    "local": "in process",
}


class Echo:
    """An expert that computes nothing."""

    def apply(self, layer: int, rows_RD: torch.Tensor) -> torch.Tensor:
        """Rows in, the same rows out."""
        return rows_RD


class Naive:
    """benchmarks/naive.py in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.naive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        while self._process.stdout.readline().strip() != "ready":
            assert self._process.poll() is None, "the naive baseline did not start"

    def measure(self, size: int, count: int) -> list[float]:
        """Microseconds of `count` fan-outs of `size` bytes a call."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([size, count]), file=self._process.stdin, flush=True)
        times: list[float] = json.loads(self._process.stdout.readline())
        return times

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def dispatch_of(tokens: int, hidden: int = HIDDEN, layer: int = 0) -> Dispatch:
    """A dispatch that loads all experts evenly, as far as `tokens` allows."""
    pairs = torch.arange(tokens * TOP_K).view(tokens, TOP_K) % EXPERTS
    experts_TK = pairs.sort(dim=-1).values
    weights_TK = torch.full((tokens, TOP_K), 1.0 / TOP_K)
    return Dispatch(layer, torch.randn(tokens, hidden).bfloat16(), experts_TK, weights_TK)


def measure(step: Callable[[], object], count: int) -> list[float]:
    """Microseconds of `count` calls."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        step()
        times.append((time.perf_counter() - started) * 1e6)
    return times


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    local = daemon.prepare("dispatch-benchmark", "", cpus=EXPERTS)
    assert local is not None
    local = daemon.wait(local, threading.Event(), 120)
    naive = Naive()
    try:
        with channels() as routers, bare_zmq() as bare:
            rows = _measure_all(naive, local.address, routers, bare, rounds)
    finally:
        naive.close()
        local.remove()
    title = "One layer's dispatch over eight echoing experts"
    publish(
        "dispatch",
        f"{title}, microseconds (median)",
        ("rows", "bytes a call", "calls", *_SHOWN.values()),
        rows,
        "naive Ray: eight calls of that many bytes as a torch tensor. In brackets: object refs / naive Ray, and "
        "channel / bare ZeroMQ. At 1 row ours makes only the calls that it needs.",
    )
    points: dict[str, list[Point]] = {
        name: [(float(row[0]), float(row[3 + i].split()[0]) / 1e3) for row in rows]
        for i, name in enumerate(_SHOWN.values())
    }
    lines("dispatch", title, ("tokens of the batch, hidden 4096 in bf16", "ms"), points)


def _measure_all(
    naive: Naive,
    address: str,
    routers: "tuple[ExpertRouter, ExpertRouter]",
    bare: Callable[[int], None],
    rounds: int,
) -> list[list[str]]:
    import ray

    from actors.replica import one_each
    from actors.routing.replicas import Replicas
    from actors.routing.router import ExpertRouter
    from actors.routing.step_counts import StepCounts
    from actors.transport.local import LocalTransport
    from actors.transport.object_refs import RayTransport

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    methods = [actor.forward for actor in _echo_actors(EXPERTS)]
    remote = ExpertRouter(RayTransport(), Replicas(one_each(methods)))
    local = ExpertRouter(LocalTransport(), Replicas(one_each([Echo()] * EXPERTS)))
    named = {"refs": remote, "near": routers[0], "far": routers[1], "local": local}
    table = []
    for tokens in ROWS:
        d = dispatch_of(tokens)
        calls = len(set(d.experts_TK.flatten().tolist()))
        size = max(1, tokens * TOP_K // EXPERTS) * HIDDEN * 2
        kinds: dict[str, Callable[[int], list[float]]] = {
            "naive": lambda n, size=size: naive.measure(size, n),  # type: ignore[misc]
            "bare": lambda n, size=size: measure(lambda: bare(size), n),  # type: ignore[misc]
        }
        for name, router in named.items():
            kinds[name] = lambda n, d=d, r=router: measure(lambda: r.combine(r.dispatch(d), StepCounts()), n)  # type: ignore[misc]
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for kind in kinds.values():
            kind(BURST)
        for _ in range(rounds):
            for name, kind in kinds.items():
                times[name] += kind(BURST)
        median = {name: statistics.median(values) for name, values in times.items()}
        cells = {name: f"{value:.0f}" for name, value in median.items()}
        cells["refs"] += f" ({median['refs'] / median['naive']:.2f} x)"
        cells["near"] += f" ({median['near'] / median['bare']:.2f} x)"
        table.append([str(tokens), str(size), str(calls), *(cells[name] for name in _SHOWN)])
        print(table[-1], file=sys.stderr, flush=True)
    ray.shutdown()
    return table


def _echo_actors(count: int) -> list[Any]:
    """Echoing experts, made as actors/remote/actors.py makes real ones."""
    import ray

    class EchoActor:
        @ray.method(concurrency_group="work")
        def forward(self, message: bytes) -> bytes:
            return message

    decorate = ray.remote(concurrency_groups={"work": 1, "control": 2})  # type: ignore[call-overload]
    remote = decorate(EchoActor).options(num_cpus=0, max_restarts=-1, max_task_retries=0)
    actors = [remote.remote() for _ in range(count)]
    from actors.transport.rows import RowsHeader, encode_rows

    probe = encode_rows(RowsHeader(0, 0, 0, 0), memoryview(b""))
    ray.get([a.forward.remote(probe) for a in actors])
    return actors


if __name__ == "__main__":
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    main()
