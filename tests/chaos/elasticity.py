"""Replicas that come and go because somebody wants it, and nodes that do."""

import time
from collections.abc import Callable

from benchmarks.load import percentile
from tests.chaos.idle import IdleProcesses
from tests.chaos.stage import Row, Stage
from tests.chaos.streams import Tally
from tests.chaos.victims import EVERY, Victims

_CYCLES_IN_TURN = 5


def scale(stage: Stage, times: int, quiet: Tally) -> Row:
    """Scale an expert 1 -> 3 -> 1. In turn with it processes of a replica's size are started, which do nothing: what
    these cost the streams is the machine's contention and not ours.
    """
    v, windows = stage.victims, list[tuple[float, float]]()
    ours, idle = Tally(), Tally()
    v.scale(dict.fromkeys(EVERY, 1))
    warm_up(v, stage)
    before = v.footprint()
    for done in range(0, times, _CYCLES_IN_TURN):
        cycles = min(_CYCLES_IN_TURN, times - done)
        windows += _cycles(stage, ours, cycles, lambda: _up_and_down(v, stage.rng.randrange(8)))
        _cycles(stage, idle, cycles, _start_and_end)
    after = v.footprint()
    tpots = [1000 * percentile(t, p) for t in (ours.tpots, idle.tpots) for p in (50, 99)]
    notes = "TPOT p50/p99 ms {:.1f}/{:.1f}, with idle processes instead {:.1f}/{:.1f}".format(*tpots)
    notes += f" ({tpots[1] / tpots[3]:.2f} x); "
    notes += ", ".join(f"{after[what] - before[what]:+d} {what} of {before[what]}" for what in after)
    return Row("scale an expert 1 -> 3 -> 1", times, quiet, ours, windows, notes)


def warm_up(v: Victims, stage: Stage) -> None:
    """What is loaded or made once, is by now."""
    stage.streams.start()
    for expert in EVERY:
        v.scale({expert: 2})
        v.scale({expert: 1})
    stage.streams.stop()


def _cycles(stage: Stage, tally: Tally, count: int, cycle: Callable[[], None]) -> list[tuple[float, float]]:
    stage.streams.start(tally)
    time.sleep(1.0)
    begin = time.monotonic()
    for _ in range(count):
        cycle()
    end = time.monotonic()
    stage.streams.stop()
    return [(begin, end)]


def _up_and_down(v: Victims, expert: int) -> None:
    v.scale({expert: 3})
    v.scale({expert: 1})


def _start_and_end() -> None:
    idle = IdleProcesses()
    idle.start(2)
    idle.end()
    time.sleep(0.5)  # about as long as replicas take to drain


def kill_node(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL the raylet of a second node that has a replica of every expert; they come back on the first."""
    v, windows, back = stage.victims, list[tuple[float, float]](), list[float]()
    v.scale(dict.fromkeys(EVERY, 1))
    tally = stage.streams.start()
    for _ in range(times):
        node = v.second_node()
        try:
            v.scale(dict.fromkeys(EVERY, 2))
            there = sum(r.node_id == node.node_id for e in v.status().experts for r in e.replicas)
            assert there == 8, f"{there} replicas are on the second node"
            at = time.monotonic()
            node.kill()
            time.sleep(1.0)
            windows.append((at, at + 2.0))
            back.append(1.0 + v.wait_ready(dict.fromkeys(EVERY, 2)))
            v.scale(dict.fromkeys(EVERY, 1))
        finally:
            node.close()
    stage.streams.stop()
    return Row("kill -9 of a node's raylet", times, quiet, tally, windows, f"replicas back after {max(back):.0f} s")


def drain_node(stage: Stage, times: int, quiet: Tally) -> Row:
    """Drain a second node that has a replica of every expert."""
    v, windows = stage.victims, list[tuple[float, float]]()
    v.scale(dict.fromkeys(EVERY, 1))
    tally = stage.streams.start()
    for _ in range(times):
        node = v.second_node()
        try:
            v.scale(dict.fromkeys(EVERY, 2))
            at = time.monotonic()
            v.drain(node.node_id)
            windows.append((at, time.monotonic()))
            v.scale(dict.fromkeys(EVERY, 1))
        finally:
            node.close()
    stage.streams.stop()
    took = max(end - at for at, end in windows)
    return Row("drain a node of eight replicas", times, quiet, tally, windows, f"done after {took:.0f} s at most")
