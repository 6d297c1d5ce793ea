"""Processes that are killed, frozen or slowed down."""

import signal
import statistics
import time

from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.chaos.brake import Brake
from tests.chaos.resuming import ResumingStreams
from tests.chaos.stage import Row, Stage
from tests.chaos.streams import Tally
from tests.chaos.victims import EVERY, Victims, send

_AROUND = 1.0  # seconds after a kill of one of two that count as around it
_STARTS = 5


def kill_one_of_two(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL a replica of an expert that has a second one, wait until it is back, then the next."""
    v, windows, seen = stage.victims, list[tuple[float, float]](), list[float]()
    v.scale(dict.fromkeys(EVERY, 2))
    tally = stage.streams.start()
    time.sleep(1.0)
    for _ in range(times):
        expert = stage.rng.randrange(8)
        victim = stage.rng.choice(v.ready(expert))
        at = send(victim.pid, signal.SIGKILL)
        windows.append((at, at + _AROUND))
        seen.append(v.wait_gone(expert, victim.pid))
        time.sleep(max(0.0, at + _AROUND - time.monotonic()))
        v.wait_ready({expert: 2})
    stage.streams.stop()
    notes = f"no longer shown as ready after {statistics.median(seen):.2f} s, {max(seen):.2f} s at most"
    return Row("kill -9 of one of two replicas", times, quiet, tally, windows, notes)


def kill_every_copy(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL all replicas of an expert at once: one where there is one (even turns), else two."""
    v, windows, back = stage.victims, list[tuple[float, float]](), list[float]()
    v.scale(dict.fromkeys(EVERY, 1))
    tally = stage.streams.start()
    time.sleep(1.0)
    for turn in range(times):
        expert, copies = stage.rng.randrange(8), 1 + turn % 2
        v.scale({expert: copies})
        at = min([send(victim.pid, signal.SIGKILL) for victim in v.ready(expert)])
        time.sleep(0.6)
        back.append(0.6 + v.wait_ready({expert: copies}))
        windows.append((at, at + back[-1]))
        v.scale({expert: 1})
        time.sleep(1.0)
    stage.streams.stop()
    return Row("kill -9 of every copy", times, quiet, tally, windows, f"back after {max(back):.1f} s at most")


def kill_sole_copy(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL the only replica of an expert. A second one is started first, a few times: what that takes, the streams
    cannot but wait.
    """
    v, windows, back = stage.victims, list[tuple[float, float]](), list[float]()
    v.scale(dict.fromkeys(EVERY, 1))
    tally = stage.streams.start()
    time.sleep(1.0)
    starts = [_start_one(v, stage.rng.randrange(8)) for _ in range(min(times, _STARTS))]
    for _ in range(times):
        expert = stage.rng.randrange(8)
        (victim,) = v.ready(expert)
        at = send(victim.pid, signal.SIGKILL)
        time.sleep(0.6)
        back.append(0.6 + v.wait_ready({expert: 1}))
        windows.append((at, at + back[-1]))
        time.sleep(1.0)
    stage.streams.stop()
    notes = f"back after {statistics.median(back):.1f} s, {max(back):.1f} s at most; to start one more takes "
    notes += f"{statistics.median(starts):.1f} s"
    return Row("kill -9 of a sole copy", times, quiet, tally, windows, notes)


def _start_one(v: Victims, expert: int) -> float:
    v.want({expert: 2})
    seconds = v.wait_ready({expert: 2})
    v.scale({expert: 1})
    return seconds


def freeze_one_of_two(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGSTOP one of two replicas, wait until it is doubted, SIGCONT, wait until it is trusted again."""
    v, windows, seen = stage.victims, list[tuple[float, float]](), list[float]()
    v.scale(dict.fromkeys(EVERY, 2))
    tally = stage.streams.start()
    time.sleep(1.0)
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
    notes = f"doubted after {max(seen):.2f} s at most"
    return Row("SIGSTOP of one of two replicas", times, quiet, tally, windows, notes)


def slow_one_of_two(stage: Stage, times: int, quiet: Tally) -> Row:
    """Let one of two replicas run a fifth of the time, for three seconds."""
    v, windows = stage.victims, list[tuple[float, float]]()
    v.scale(dict.fromkeys(EVERY, 2))
    tally = stage.streams.start()
    time.sleep(1.0)
    before = v.calls()
    for _ in range(times):
        expert = stage.rng.randrange(8)
        at = time.monotonic()
        with Brake(stage.rng.choice(v.ready(expert)).pid):
            time.sleep(3.0)
        windows.append((at, time.monotonic()))
        v.wait_ready({expert: 2})
    stage.streams.stop()
    again, hedged = (after - count for after, count in zip(v.calls(), before, strict=True))
    notes = f"{hedged} calls hedged, {again} sent again"
    return Row("one of two replicas five times slower", times, quiet, tally, windows, notes)


def kill_head(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL the head."""
    v, windows = stage.victims, list[tuple[float, float]]()
    tally = stage.streams.start()
    time.sleep(1.0)
    for _ in range(times):
        before = v.status().heads[0].restart_count
        at = send(v.head(), signal.SIGKILL)
        while v.status().heads[0].restart_count == before:
            time.sleep(0.1)
        windows.append((at, time.monotonic() + 1.0))
        time.sleep(2.0)
    stage.streams.stop()
    return Row("kill -9 of the head", times, quiet, tally, windows, exact=stage.exact)


def freeze_head(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGSTOP the head and leave it so: after `head.hang_s` it must be ended and begin anew."""
    v, windows = stage.victims, list[tuple[float, float]]()
    tally = stage.streams.start()
    time.sleep(1.0)
    for _ in range(times):
        before = v.status().heads[0].restart_count
        at = send(v.head(), signal.SIGSTOP)
        while v.status().heads[0].restart_count == before:
            assert time.monotonic() < at + 120.0, "a frozen head stays"
            time.sleep(0.1)
        windows.append((at, time.monotonic() + 1.0))
        time.sleep(2.0)
    stage.streams.stop()
    return Row("SIGSTOP of the head, for good", times, quiet, tally, windows, exact=stage.exact)


def kill_serve(stage: Stage, times: int, quiet: Tally) -> Row:
    """SIGKILL `serve`, start another as a supervisor does; in odd turns an expert is killed, too. The streams are our
    client's, which go on by themselves; a request that finds no server is sent again.
    """
    v, windows, served = stage.victims, list[tuple[float, float]](), {False: [0.0], True: [0.0]}
    v.scale(dict.fromkeys(EVERY, 1))
    streams = ResumingStreams(stage.streams)
    tally = streams.start()
    time.sleep(2.0)
    for turn in range(times):
        expert_too = turn % 2 == 1
        victims = v.ready(stage.rng.randrange(8)) if expert_too else []
        actors = v.server.actors()
        at = time.monotonic()
        for victim in victims:
            send(victim.pid, signal.SIGKILL)
        v.server.replace()
        served[expert_too].append(v.wait_served() - at)
        windows.append((at, time.monotonic() + 1.0))
        v.wait_ready(dict.fromkeys(EVERY, 1))
        assert v.server.actors() >= actors - {victim.pid for victim in victims}, "the actors were adopted"
        time.sleep(3.0)
    streams.stop()
    notes = f"new requests served after {max(served[False]):.1f} s at most, {max(served[True]):.1f} s with an expert"
    notes += f" killed, too; {tally.refused} found no server and were sent again"
    return Row("kill -9 of serve", times, quiet, tally, windows, notes, exact=stage.exact)
