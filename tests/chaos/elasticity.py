"""Replicas that come and go because somebody wants it, and nodes that do."""

import statistics
import time
from collections.abc import Callable

from benchmarks.load import percentile
from tests.chaos.idle import IdleProcesses, one_share
from tests.chaos.stage import Row, Stage
from tests.chaos.streams import Tally, merged
from tests.chaos.victims import EVERY, Victims

_CYCLES_IN_TURN = 5


def scale(stage: Stage, times: int, quiet: Tally) -> Row:
    """Scale an expert 1 -> 3 -> 1. In turn with it processes of a replica's size are started, which do nothing: what
    these cost the streams is the machine's contention and not ours.
    """
    v, windows = stage.victims, list[tuple[float, float]]()
    pairs = list[tuple[Tally, Tally]]()
    v.scale(dict.fromkeys(EVERY, 1))
    warm_up(v, stage)
    before = v.footprint()
    with one_share() as fair:
        for done in range(0, times, _CYCLES_IN_TURN):
            cycles, pair = min(_CYCLES_IN_TURN, times - done), (Tally(), Tally())
            windows += _cycles(stage, pair[0], cycles, lambda: _up_and_down(v, stage.rng.randrange(8)))
            _cycles(stage, pair[1], cycles, _start_and_end)
            pairs.append(pair)
    after = v.footprint()
    notes = _compared(pairs) + ("" if fair else " (which take less than their part: another session)") + "; "
    notes += ", ".join(f"{after[what] - before[what]:+d} {what} of {before[what]}" for what in after)
    return Row("scale an expert 1 -> 3 -> 1", times, quiet, merged(ours for ours, _ in pairs), windows, notes)


def _compared(pairs: list[tuple[Tally, Tally]]) -> str:
    ours, idle = (merged(side).tpots for side in zip(*pairs, strict=True))
    numbers = [1000 * percentile(tpots, p) for tpots in (ours, idle) for p in (50, 99)]
    ratios = sorted(percentile(a.tpots, 99) / percentile(b.tpots, 99) for a, b in pairs)
    numbers += [numbers[1] / numbers[3], statistics.median(ratios), ratios[0], ratios[-1]]
    text = "TPOT p50/p99 ms {:.1f}/{:.1f}, with idle processes instead {:.1f}/{:.1f}; p99 {:.2f} x, by turns {:.2f} x"
    return (text + " ({:.2f} to {:.2f})").format(*numbers)


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
            gone = v.wait_node_gone(node.node_id)  # scaling down before would end the living ones
            windows.append((at, at + 2.0))
            back.append(gone + v.wait_ready(dict.fromkeys(EVERY, 2)))
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
