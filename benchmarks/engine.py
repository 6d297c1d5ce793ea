"""The cost of the engine beside the model, and the memory it keeps.

    python -m benchmarks.engine [steps] [memory] [idle]     (default: all)

- steps: 64 sequences of the demo in one process. The head is timed from outside; what lies between its answer and the
  next plan is the scheduler's commit, the hand-over of tokens, and the scheduler's plan.
- memory: resident memory of a server on Ray after 1,000 requests, and after 10,000.
- idle: processor time of a server that nobody asks.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from actors.seams import HeadHandle
from benchmarks.bare_start import ACTORS, cpu_seconds
from benchmarks.load import Job, Load, median, some_prompt
from benchmarks.report import publish
from benchmarks.server import Server, serving
from cluster.engine.engine import Engine
from cluster.engine.events import Event
from cluster.engine.generation import GenerationRequest
from cluster.engine.served_model import ServedModel
from cluster.launch.in_process import HeadOnly, InProcess
from cluster.launch.server import Server as InProcessServer
from cluster.launch.specs import engine_config
from cluster.policy.scheduling.sequence import SequenceRequest
from cluster.settings.config import Config, load_config
from model.batch import HeadInfo, SamplingParams, StepFailure, StepPlan, StepResult

_RUNNING, _TOKENS = 64, 200
_GREEDY = SamplingParams(temperature=0.0)


class TimedHead:
    """A `HeadHandle` that notes, for steps of `_RUNNING` decodes, the seconds in the head and those before it."""

    def __init__(self, head: HeadHandle) -> None:
        self._head, self._full = head, False
        self._submitted = self._answered = 0.0
        self.between: list[float] = []
        self.inside: list[float] = []

    def begin(self, epoch: int) -> HeadInfo:
        return self._head.begin(epoch)

    def submit(self, plan: StepPlan) -> None:
        now, before = time.perf_counter(), self._full
        self._full = len(plan.chunks) == _RUNNING and all(chunk.length == 1 for chunk in plan.chunks)
        if self._full and before:
            self.between.append(now - self._answered)
        self._submitted = time.perf_counter()
        self._head.submit(plan)

    def poll(self, timeout: float | None) -> StepResult | StepFailure | None:
        result = self._head.poll(timeout)
        self._answered = time.perf_counter()
        if self._full and result is not None:
            self.inside.append(self._answered - self._submitted)
        return result


class TimedRuntime:
    """A `Runtime` in this process whose head is timed."""

    def __init__(self, config: Config, served: ServedModel) -> None:
        self._inner = InProcess(config, served.checkpoint, lambda phase, progress: None)
        self.head: TimedHead | None = None

    def await_turn(self, stop: threading.Event, obstacle: Callable[[], str]) -> None:
        pass

    def start(self, stop: threading.Event) -> HeadOnly:
        self.head = TimedHead(self._inner.start(stop).head)
        return HeadOnly(self.head)

    def abandon(self) -> None:
        pass


def steps() -> None:
    """Share of a step that is not the head's."""
    rows = []
    for name, run in (("engine alone", _engine_alone), ("with text for 64 clients in the same process", _with_text)):
        served = ServedModel.open("demo")
        config = load_config(None, {}, ["runtime=in_process", "model.dtype=float32"])
        runtime = TimedRuntime(config, served)
        run(config, served, runtime)
        head = runtime.head
        assert head is not None
        between, inside = median(head.between), median(head.inside)
        share = sum(head.between) / (sum(head.between) + sum(head.inside))
        rows.append(
            [name, str(len(head.inside)), f"{1e3 * inside:.2f}", f"{1e3 * between:.3f}", f"{100 * share:.2f} %"]
        )
    header = ("", "steps", "head ms", "plan and commit ms", "share of the step")
    publish("engine_steps", f"A step of {_RUNNING} running requests, demo checkpoint in one process", header, rows)


def _prompt(number: int) -> tuple[int, ...]:
    return some_prompt(random.Random(number), 32)


def _engine_alone(config: Config, served: ServedModel, runtime: TimedRuntime) -> None:
    left, done = [_RUNNING], threading.Event()

    def sink(events: list[Event]) -> None:
        left[0] -= sum(getattr(event, "finish", None) is not None for event in events)
        if not left[0]:
            done.set()

    head = runtime.start(threading.Event()).head
    engine = Engine(head, engine_config(config, served.checkpoint.config.sliding_window), sink)
    engine.start()
    for i in range(_RUNNING):
        engine.submit([SequenceRequest(_prompt(i), _GREEDY, _TOKENS, sequence_id=str(i))])
    done.wait()
    engine.stop()


def _with_text(config: Config, served: ServedModel, runtime: TimedRuntime) -> None:
    async def one(server: InProcessServer, number: int) -> None:
        request = GenerationRequest(str(number), SequenceRequest(_prompt(number), _GREEDY, _TOKENS))
        with server.generations.running(request, server.engine) as generation:
            async for _ in generation.pieces():
                pass

    async def run() -> None:
        server = InProcessServer(config, served, runtime)
        await server.start(threading.Event())
        await asyncio.gather(*(one(server, i) for i in range(_RUNNING)))
        await server.close(keep_actors=False)

    asyncio.run(run())


def memory(first: int = 1000, last: int = 10_000, clients: int = 64) -> None:
    """Resident memory by role."""
    rng, readings = random.Random(5), []

    def jobs(count: int) -> list[Job]:
        return [Job(some_prompt(rng, rng.randint(2, 60)), rng.randint(1, 8)) for _ in range(count)]

    async def work(server: Server) -> None:
        load = Load(server.address)
        for count in (first, last - first):
            codes = {outcome.code for outcome in await load.closed_loop(jobs(count), clients)}
            assert codes == {"OK"}, codes
            await asyncio.sleep(2.0)
            readings.append(_resident(server))
            print(f"memory: {readings[-1]} MiB", file=sys.stderr, flush=True)
        await load.close()

    with serving() as server:
        asyncio.run(work(server))
    before, after = readings
    rows = [[role, f"{before[role]:.1f}", f"{after[role]:.1f}", f"{after[role] / before[role]:.4f}"] for role in before]
    publish(
        "engine_memory",
        f"Resident memory of a server after {first} and after {last} requests",
        ("processes", "MiB after first", "MiB after last", "ratio"),
        rows,
    )


def _resident(server: Server) -> dict[str, float]:
    processes = server.processes()
    sums = {role: sum(p.memory_info().rss for p in processes[role]) / 2**20 for role in ("serve", "actors")}
    return sums | {"both": sum(sums.values())}


def idle(seconds: float = 60.0) -> None:
    """Processor time by role, and that of actors which do nothing."""
    rows = []
    with serving() as server:
        time.sleep(10.0)
        roles = {role: [p.pid for p in processes] for role, processes in server.processes().items()}
        before = {role: cpu_seconds(pids) for role, pids in roles.items()}
        time.sleep(seconds)
        for role, pids in roles.items():
            rows.append((role, len(pids), cpu_seconds(pids) - before[role]))
    command = [sys.executable, "-m", "benchmarks.bare_start", str(seconds)]
    bare = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    rows.append(("bare Ray actors that do nothing", ACTORS, float(bare[-1])))
    cells = [
        [role, str(n), f"{s:.2f}", f"{100 * s / seconds:.2f} %", f"{100 * s / seconds / n:.2f} %"]
        for role, n, s in rows
    ]
    header = ("processes", "number", "CPU seconds", "of a core", "each")
    publish("engine_idle", f"Processor time of an idle server in {seconds:g} s", header, cells)


PARTS: dict[str, Callable[[], None]] = {"steps": steps, "memory": memory, "idle": idle}


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    wanted = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    for name in wanted:
        PARTS[name]()


if __name__ == "__main__":
    main()
