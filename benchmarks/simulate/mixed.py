"""Hosts of different speed, in namespaces of this machine. Needs root.

    python -m benchmarks.simulate.mixed CHECKPOINT [--rounds 3] [--requests 32]

The head has a host of its own; of the two with experts one may use a core, the other half of one. Experts are placed
evenly, because each host is said to have room for four, and as the controller places them by the hosts' measured
speeds. The simulator says how much faster that should be, from what `benchmarks.simulate check` kept.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.peers.systems import ask_eightwinds
from benchmarks.peers.work import Work as Requests
from benchmarks.report import publish, say
from benchmarks.simulate.calibration import Calibration
from benchmarks.simulate.check import KEPT
from benchmarks.simulate.cluster import Layout, Seat, Shape
from benchmarks.simulate.events import Work, step_seconds
from model.config import MixtralConfig
from tests.multihost import jail
from tests.multihost.cluster import PlainCluster
from tests.multihost.cpu_limit import CpuLimit
from tests.multihost.hosts import Hosts

_CORES = (1.0, 0.5)
_WAYS = {"evenly": "experts.resources={worker: 0.25}", "by speed": "experts.resources={worker: 0.01}"}
_PROMPT, _TOKENS = 64, 64


def measure(checkpoint: str, way: str, requests: int, rounds: int) -> tuple[float, list[int]]:
    """Output tokens a second, median, and how many experts each host has."""
    with Hosts(3) as hosts:
        for host, cores in zip(hosts.all[1:], _CORES, strict=True):
            host.limit = CpuLimit(host.name, cores)
        settings = [f"head.resources={{node:{hosts.all[0].address}: 0.01}}", "model.dtype=bfloat16"]
        cluster = PlainCluster(hosts, [f"model.path={checkpoint}", *settings, _WAYS[way]])
        here = Counter(host.name for host in cluster.workers for _ in cluster.replicas(host))
        nodes = {node.address: node.calls_per_second for node in cluster.status().nodes}
        say(f"calls a second: {', '.join(f'{host.name} {nodes[host.address]:.0f}' for host in hosts.all)}")
        rates = []
        for round_ in range(rounds):
            work = Requests(requests, _PROMPT, _TOKENS)
            rates.append(requests * _TOKENS / ask_eightwinds(cluster.serves[0].address, work, round_).seconds)
            say(f"{way}, {dict(here)}: {rates[-1]:.1f} tokens/s")
        cluster.close()
        return median(rates), [here[host.name] for host in cluster.workers]


def simulated(checkpoint: str, counts: list[int], requests: int) -> float:
    """Seconds of a step with so many experts on each host."""
    shape = Shape(MixtralConfig.load(Path(checkpoint)))
    calibration = Calibration(**json.loads(KEPT.read_text(encoding="utf-8")))
    whole = calibration.machine(shape.config)
    seats, first = list[Seat](), 0
    for cores, count in zip(_CORES, counts, strict=True):
        own = replace(whole, lanes=1, computes=whole.computes * cores, call=whole.call / cores)
        seats.append(Seat(own, tuple(range(first, first + count)), away=False))
        first += count
    return step_seconds(shape, Layout(calibration.head(), tuple(seats)), Work(requests, requests))


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=32)
    arguments = parser.parse_args()
    if not jail.inside():
        if lack := jail.lacks():
            parser.error(lack)
        return jail.run_inside("benchmarks.simulate.mixed", sys.argv[1:])
    jail.furnish()
    found = {way: measure(arguments.checkpoint, way, arguments.requests, arguments.rounds) for way in _WAYS}
    steps = {way: simulated(arguments.checkpoint, counts, arguments.requests) for way, (_, counts) in found.items()}
    even, _ = found["evenly"]
    rows = [
        [
            way,
            " and ".join(map(str, counts)),
            f"{rate:.1f}",
            f"{rate / even:.2f} x",
            f"{steps['evenly'] / steps[way]:.2f} x",
        ]
        for way, (rate, counts) in found.items()
    ]
    header = ("placed", "experts on 1 core and on half of one", "tokens/s", "", "simulated")
    title = f"Mixed hosts, {arguments.requests} x ({_PROMPT} + {_TOKENS}), median of {arguments.rounds} rounds"
    publish("simulate_mixed", title, header, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
