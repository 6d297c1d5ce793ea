"""Where the time of a decode step goes: a bar of its parts for 1, 8 and 32 requests, with eight expert processes.

    python -m benchmarks.parts CHECKPOINT [--requests 1 8 32] [--steps 60]

The head and the engine run in this process, and note the time at every boundary that a step passes, so that the parts
add up to the step. From the first call of a layer to its last answer CPU time tells three parts apart: "dispatch" is
that of the head's thread, "experts" that of their processes, over the cores of the machine; the rest is waking up, the
way there and back, and cores that have nothing to do: "idle".
"""

import argparse
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import psutil

import model.trunk
from actors.head import Head, LocalHead
from actors.routing.router import ExpertRouter
from actors.threads import cores
from benchmarks.charts import bars
from benchmarks.load import some_prompt
from benchmarks.overlap import serving
from benchmarks.processes import begin_again_with
from benchmarks.report import publish
from cluster.engine.engine import Engine
from cluster.engine.events import Event
from cluster.launch.specs import engine_config
from cluster.policy.scheduling.sequence import SequenceRequest
from cluster.settings.config import load_config
from model.batch import SamplingParams
from model.slots import Slots

_PARTS = ("schedule", "attention", "gate", "dispatch", "experts", "idle", "combine", "output head", "sample")
_PROMPT, _WARM, _SPARE = 64, 20, 20  # tokens; so many steps are not counted at the beginning and at the end


class Watch:
    """Adds the time since the last boundary to a part, and the thread's CPU time since then to `PART cpu`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter(), time.thread_time()

    def lap(self, part: str) -> None:
        now = time.perf_counter(), time.thread_time()
        self.seconds[part] += now[0] - self._last[0]
        self.seconds[f"{part} cpu"] += now[1] - self._last[1]
        self._last = now

    def around(self, work: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
        """`work`, behind which `after` ends, and before which `before` does."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.lap(before)
            result = work(*args, **kwargs)
            self.lap(after)
            return result

        return timed


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Boundaries in the head's own functions; a layer that has come back is followed by attention or the output head,
    which only the end of the step tells apart.
    """
    boundaries: Sequence[tuple[Any, str, str, str]] = (
        (Head, "step", "schedule", "sample"),
        (Slots, "batch", "schedule", "attention"),
        (model.trunk, "linear", "attention", "gate"),
        (model.trunk, "route", "gate", "gate"),
        (ExpertRouter, "dispatch", "gate", "dispatch"),
        (ExpertRouter, "_poll", "dispatch", "wait"),
        (ExpertRouter, "combine", "dispatch", "combine"),
        (Slots, "results", "output head", "sample"),
    )
    with ExitStack() as stack:
        for owner, name, before, after in boundaries:
            stack.enter_context(patch.object(owner, name, watch.around(getattr(owner, name), before, after)))
        yield


def measure(head: Head, requests: int, steps: int) -> dict[str, float]:
    """Milliseconds of each part of a step of so many decodes, mean."""
    children = psutil.Process().children()
    watch, done, count = Watch(), threading.Event(), [0]
    marks: list[tuple[dict[str, float], float]] = []

    def sink(events: list[Event]) -> None:
        count[0] += 1
        if count[0] in (_WARM, _WARM + steps):
            marks.append((dict(watch.seconds), sum(sum(child.cpu_times()[:2]) for child in children)))
        if count[0] == _WARM + steps:
            done.set()

    config = load_config(None, {}, [f"scheduler.max_running_requests={requests}"])
    engine = Engine(LocalHead(head), engine_config(config, None), sink)
    with watched(watch):
        engine.start()
        source = random.Random(requests)
        greedy = SamplingParams(temperature=0.0)
        for i in range(requests):
            ids = some_prompt(source, _PROMPT)
            engine.submit([SequenceRequest(ids, greedy, _WARM + steps + _SPARE, sequence_id=str(i))])
        done.wait()
    engine.stop()
    (first, cpu_first), (last, cpu_last) = marks
    each = {part: 1e3 * (last[part] - first[part]) / steps for part in last}
    away = each["dispatch"] + each["wait"]
    experts = 1e3 * (cpu_last - cpu_first) / steps / cores()
    each |= {"dispatch": each["dispatch cpu"], "experts": experts, "idle": away - each["dispatch cpu"] - experts}
    return {part: each[part] for part in _PARTS}


def main() -> None:
    """Measure and publish."""
    begin_again_with(OMP_WAIT_POLICY="passive")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    with serving(arguments.checkpoint) as (head, _):
        for requests in arguments.requests:
            parts = measure(head, requests, arguments.steps)
            found[f"{requests} at once"] = [parts[part] for part in _PARTS]
            print(requests, {part: round(ms, 2) for part, ms in parts.items()}, file=sys.stderr)
    title = "Parts of a decode step, eight expert processes"
    rows = [[name, *(f"{ms:.1f}" for ms in (*parts, sum(parts)))] for name, parts in found.items()]
    publish("parts", f"{title}, ms", ("", *_PARTS, "step"), rows)
    bars("parts", title, "ms", _PARTS, found)


if __name__ == "__main__":
    main()
