"""Systems that serve a checkpoint, behind one small interface: started, asked, ended."""

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Job, Load, median
from benchmarks.peers.work import Timing, Work
from benchmarks.server import serving

Ask = Callable[[Work, int], Timing]  # carries out a work, in its round
_HERE = Path(__file__).parent
_PATIENCE = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class System:
    """`start` gives a context in which it can be asked."""

    name: str
    start: Callable[[], AbstractContextManager[Ask]]


def eightwinds(name: str, checkpoint: str, *settings: str) -> System:
    """This project, asked over gRPC with streams."""

    @contextmanager
    def start() -> Iterator[Ask]:
        with serving(f"model.path={checkpoint}", *settings) as server:
            yield lambda work, round_: ask_eightwinds(server.address, work, round_)

    return System(name, start)


def ask_eightwinds(address: str, work: Work, round_: int) -> Timing:
    """Over gRPC; SystemExit if a request fails."""
    return asyncio.run(_ask(address, work, round_))


async def _ask(address: str, work: Work, round_: int) -> Timing:
    load = Load(address)
    jobs = [Job(tuple(ids), work.tokens) for ids in work.prompts(round_)]
    outcomes = await asyncio.gather(*map(load.ask, jobs))
    await load.close()
    if failed := [o.code for o in outcomes if len(o.arrivals) != work.tokens]:
        raise SystemExit(f"{len(failed)} of {work.count} requests failed: {failed[0]}")
    seconds = max(o.ended for o in outcomes) - min(o.sent for o in outcomes)
    return Timing(seconds, median(o.ttft for o in outcomes))


def vllm(checkpoint: str, python: str, threads: int) -> System:
    """vLLM's CPU build as a library, without a server: `python` is that of its own environment."""
    return _child("vLLM", [python, str(_HERE / "child_vllm.py"), checkpoint, str(threads)])


def vllm_server(checkpoint: str, python: str, threads: int) -> System:
    """The same with its server, asked over HTTP with a stream each."""
    return _child("vLLM's server", [python, str(_HERE / "child_vllm_server.py"), checkpoint, str(threads)])


def transformers(checkpoint: str, threads: int) -> System:
    """HF transformers with a static batch."""
    return _child("transformers", [sys.executable, str(_HERE / "child_transformers.py"), checkpoint, str(threads)])


def _child(name: str, command: list[str]) -> System:
    """A process that reads works as lines of JSON, and answers each with its seconds, and its TTFT if it has one."""

    @contextmanager
    def start() -> Iterator[Ask]:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdin and process.stdout
        reader, writer = process.stdout, process.stdin

        def told() -> str:
            for line in reader:
                if line.startswith("eightwinds: "):
                    return line.removeprefix("eightwinds: ").strip()
            raise SystemExit(f"{name} ended with {process.wait()}: run `{' '.join(command)}` by hand to see why")

        def ask(work: Work, round_: int) -> Timing:
            writer.write(json.dumps({"prompts": work.prompts(round_), "tokens": work.tokens}) + "\n")
            writer.flush()
            seconds, *ttft = map(float, told().split())
            return Timing(seconds, *ttft or [math.nan])

        try:
            told()  # that it is ready
            yield ask
        finally:
            writer.close()
            process.wait(_PATIENCE)

    return System(name, start)
