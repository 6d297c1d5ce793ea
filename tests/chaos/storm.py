"""Everything at once: a plan of deeds, drawn from a seed, that do not wait for each other to be over."""

import contextlib
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.chaos.brake import Brake
from tests.chaos.stage import Row, Stage
from tests.chaos.streams import Tally
from tests.chaos.victims import EVERY, Victims, send

_KINDS = ("kill", "kill", "kill every copy", "freeze", "slow", "scale", "scale", "kill head")


@dataclass(frozen=True, slots=True)
class Deed:
    """What is done to an expert, `pause` seconds after the deed before. `count` is of replicas wanted; a freeze or a
    slow-down lasts `seconds`.
    """

    kind: str
    pause: float
    expert: int
    count: int
    seconds: float


def plan(rng: random.Random, times: int) -> list[Deed]:
    """As many deeds, each kind at least once if there are enough."""
    kinds = [*rng.sample(_KINDS, len(_KINDS)), *rng.choices(_KINDS, k=max(0, times - len(_KINDS)))][:times]
    return [
        Deed(kind, rng.uniform(0.1, 3.0), rng.randrange(8), rng.randint(1, 3), rng.uniform(0.5, 4.0)) for kind in kinds
    ]


def storm(stage: Stage, times: int, quiet: Tally) -> Row:
    """Carry out a plan; then all must become as is wanted, with no request failed and no token another."""
    v, deeds, wanted = stage.victims, plan(stage.rng, times), dict.fromkeys(EVERY, 2)
    v.scale(wanted)
    tally, begin, lasting = stage.streams.start(), time.monotonic(), list[threading.Thread]()
    done = Counter[str]()
    for deed in deeds:
        time.sleep(deed.pause)
        print(f"{time.monotonic() - begin:6.1f} s: {deed}", file=sys.stderr, flush=True)
        if deed.kind == "scale":
            wanted[deed.expert] = deed.count
            v.want({deed.expert: deed.count})
        else:
            lasting += _DEEDS[deed.kind](v, deed)
        done[deed.kind] += 1
    for thread in lasting:
        thread.join()
    settled = v.wait_ready(wanted)
    windows = [(begin, time.monotonic())]
    stage.streams.stop()
    notes = ", ".join(f"{count} x {kind}" for kind, count in sorted(done.items()))
    notes += f"; settled {settled:.0f} s after the last"
    return Row("all of it at once", times, quiet, tally, windows, notes, exact=stage.exact)


def _kill(v: Victims, deed: Deed) -> list[threading.Thread]:
    for pid in _pids(v, deed.expert)[:1]:
        _send(pid, signal.SIGKILL)
    return []


def _kill_every_copy(v: Victims, deed: Deed) -> list[threading.Thread]:
    for pid in _pids(v, deed.expert):
        _send(pid, signal.SIGKILL)
    return []


def _kill_head(v: Victims, deed: Deed) -> list[threading.Thread]:
    with contextlib.suppress(AssertionError, psutil.NoSuchProcess):  # it is still away from the last time
        _send(v.head(), signal.SIGKILL)
    return []


def _freeze(v: Victims, deed: Deed) -> list[threading.Thread]:
    def hold(pid: int) -> None:
        _send(pid, signal.SIGSTOP)
        time.sleep(deed.seconds)
        _send(pid, signal.SIGCONT)

    return _begin(hold, _pids(v, deed.expert)[:1])


def _slow(v: Victims, deed: Deed) -> list[threading.Thread]:
    def hold(pid: int) -> None:
        with Brake(pid):
            time.sleep(deed.seconds)

    return _begin(hold, _pids(v, deed.expert)[:1])


_DEEDS: dict[str, Callable[[Victims, Deed], list[threading.Thread]]] = {
    "kill": _kill,
    "kill every copy": _kill_every_copy,
    "kill head": _kill_head,
    "freeze": _freeze,
    "slow": _slow,
}


def _pids(v: Victims, expert: int) -> list[int]:
    return [replica.pid for replica in v.ready(expert)]


def _begin(hold: Callable[[int], None], pids: list[int]) -> list[threading.Thread]:
    threads = [threading.Thread(target=hold, args=(pid,)) for pid in pids]
    for thread in threads:
        thread.start()
    return threads


def _send(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # another deed was faster
        send(pid, signum)
