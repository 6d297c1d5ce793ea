"""What happens to a server under load. Each scenario answers with a row: what, how often, and what the streams met."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.load import percentile
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.chaos.streams import Streams, Tally
from tests.chaos.victims import Victims, send

HEADER = ("what", "times", "requests", "failed", "different", "p99 gap ms", "p99 around ms", "longest gap s", "notes")


@dataclass(frozen=True, slots=True)
class Stage:
    """A server under load: its processes, its streams and a source of chance."""

    victims: Victims
    streams: Streams
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a scenario."""

    what: str
    times: int
    quiet: Tally
    tally: Tally
    windows: list[tuple[float, float]]
    notes: str = ""

    @property
    def good(self) -> bool:
        """No request failed and no token differed."""
        return not self.tally.failed and not self.tally.different and self.tally.done > 0

    def cells(self) -> list[str]:
        """For the table."""
        before, around = percentile(self.quiet.gaps(), 99), self.tally.gaps(self.windows)
        numbers = [self.times, self.tally.done, len(self.tally.failed), self.tally.different]
        worst = max(around, default=0.0)
        times = [f"{1000 * before:.0f}", f"{1000 * percentile(around, 99):.0f}", f"{worst:.2f}"]
        return [self.what, *map(str, numbers), *times, self.notes]


def kill_one_of_two(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL a replica of an expert that has a second one, wait until it is back, then the next."""
    v, windows = stage.victims, list[tuple[float, float]]()
    v.scale({expert: 2 for expert in range(8)})
    tally = stage.streams.start()
    time.sleep(1.0)
    for _ in range(times):
        expert = stage.rng.randrange(8)
        victim = stage.rng.choice(v.ready(expert))
        at = send(victim.pid, signal.SIGKILL)
        windows.append((at, at + 1.0))
        time.sleep(1.0)
        v.wait_ready({expert: 2})
    stage.streams.stop()
    return Row("kill -9 of one of two replicas", times, quiet, tally, windows)


def kill_sole_copy(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL the only replica of an expert."""
    v, windows = stage.victims, list[tuple[float, float]]()
    v.scale({expert: 1 for expert in range(8)})
    tally = stage.streams.start()
    time.sleep(1.0)
    back = []
    for _ in range(times):
        expert = stage.rng.randrange(8)
        (victim,) = v.ready(expert)
        at = send(victim.pid, signal.SIGKILL)
        time.sleep(0.6)
        back.append(0.6 + v.wait_ready({expert: 1}))
        windows.append((at, at + back[-1]))
        time.sleep(1.0)
    stage.streams.stop()
    return Row("kill -9 of a sole copy", times, quiet, tally, windows, f"back after {max(back):.1f} s at most")


def freeze_one_of_two(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGSTOP one of two replicas, wait until it is doubted, SIGCONT, wait until it is trusted again."""
    v, windows = stage.victims, list[tuple[float, float]]()
    v.scale({expert: 2 for expert in range(8)})
    tally = stage.streams.start()
    time.sleep(1.0)
    seen = []
    for _ in range(times):
        expert = stage.rng.randrange(8)
        victim = stage.rng.choice(v.ready(expert))
        at = send(victim.pid, signal.SIGSTOP)
        try:
            seen.append(v.wait_state(expert, victim.pid, pb.REPLICA_STATE_UNREACHABLE))
            time.sleep(1.0)
        finally:
            send(victim.pid, signal.SIGCONT)
        windows.append((at, time.monotonic()))
        v.wait_ready({expert: 2})
    stage.streams.stop()
    return Row(
        "SIGSTOP of one of two replicas", times, quiet, tally, windows, f"doubted after {max(seen):.2f} s at most"
    )


def kill_head(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL the head."""
    v, windows = stage.victims, list[tuple[float, float]]()
    tally = stage.streams.start()
    time.sleep(1.0)
    for _ in range(times):
        before = v.status().head.restart_count
        at = send(v.head(), signal.SIGKILL)
        while v.status().head.restart_count == before:
            time.sleep(0.1)
        windows.append((at, time.monotonic() + 1.0))
        time.sleep(2.0)
    stage.streams.stop()
    return Row("kill -9 of the head", times, quiet, tally, windows)


def scale(stage: Stage, times: int, quiet: Tally) -> Row:
    """Scale an expert 1 -> 3 -> 1."""
    v = stage.victims
    v.scale({expert: 1 for expert in range(8)})
    tally, begin = stage.streams.start(), time.monotonic()
    for cycle in range(times):
        if cycle == times // 10:  # what is loaded once, is by now
            before = v.footprint()
        expert = stage.rng.randrange(8)
        v.scale({expert: 3})
        v.scale({expert: 1})
    windows = [(begin, time.monotonic())]
    stage.streams.stop()
    after = v.footprint()
    grown = ", ".join(f"{after[what] - before[what]:+d} {what} of {before[what]}" for what in after)
    return Row("scale an expert 1 -> 3 -> 1", times, quiet, tally, windows, f"since cycle {times // 10}: {grown}")


def kill_node(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL the raylet of a second node that has a replica of every expert; they come back on the first."""
    v, windows, back = stage.victims, list[tuple[float, float]](), list[float]()
    v.scale({expert: 1 for expert in range(8)})
    tally = stage.streams.start()
    for _ in range(times):
        node = v.second_node()
        try:
            v.scale({expert: 2 for expert in range(8)})
            there = sum(r.node_id == node.node_id for e in v.status().experts for r in e.replicas)
            assert there == 8, f"{there} replicas are on the second node"
            at = time.monotonic()
            node.kill()
            time.sleep(1.0)
            windows.append((at, at + 2.0))
            back.append(1.0 + v.wait_ready({expert: 2 for expert in range(8)}))
            v.scale({expert: 1 for expert in range(8)})
        finally:
            node.close()
    stage.streams.stop()
    return Row("kill -9 of a node's raylet", times, quiet, tally, windows, f"replicas back after {max(back):.0f} s")


def drain_node(stage: Stage, times: int, quiet: Tally) -> Row:
    """Drain a second node that has a replica of every expert."""
    v, windows = stage.victims, list[tuple[float, float]]()
    v.scale({expert: 1 for expert in range(8)})
    tally = stage.streams.start()
    for _ in range(times):
        node = v.second_node()
        try:
            v.scale({expert: 2 for expert in range(8)})
            at = time.monotonic()
            v.drain(node.node_id)
            windows.append((at, time.monotonic()))
            v.scale({expert: 1 for expert in range(8)})
        finally:
            node.close()
    stage.streams.stop()
    took = max(end - at for at, end in windows)
    return Row("drain a node of eight replicas", times, quiet, tally, windows, f"done after {took:.0f} s at most")


SCENARIOS: dict[str, tuple[Callable[[Stage, int, Tally], Row], int, int]] = {  # how often: in full, in short
    "kill-one-of-two": (kill_one_of_two, 100, 4),
    "freeze": (freeze_one_of_two, 10, 2),
    "kill-sole-copy": (kill_sole_copy, 20, 1),
    "kill-head": (kill_head, 10, 1),
    "scale": (scale, 50, 2),
    "drain-node": (drain_node, 2, 0),
    "kill-node": (kill_node, 3, 0),
}
