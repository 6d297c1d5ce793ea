"""This project beside llama.cpp's RPC mode, each over three hosts in namespaces of this machine. Needs root.

    python -m benchmarks.peers.hosts CHECKPOINT --llama FOLDER --gguf FILE [--work 32x64+64] [--rounds 3]

`FOLDER` has `llama-server` and `ggml-rpc-server`, `FILE` is the checkpoint in bf16. The hosts share the machine's
cores: what is compared are overheads, not what more machines give.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.rounds import measure, table
from benchmarks.peers.systems import Ask, System, ask_eightwinds
from benchmarks.peers.work import Timing, Work
from benchmarks.report import publish
from tests.multihost import jail
from tests.multihost.cluster import PlainCluster
from tests.multihost.hosts import Host, Hosts

_WORKS = ("32x64+64", "1x64+64")
_RPC_PORT, _HTTP_PORT, _SLOTS, _SLOT_TOKENS = 50052, 8080, 32, 256
_BYTES = range(3, 259)  # ids of single bytes, which random weights put out and on which its server fails: no UTF-8
_PATIENCE = 240.0  # seconds


def eightwinds(name: str, checkpoint: str, *settings: str) -> System:
    """Ray on all hosts, `serve` on the first."""

    @contextmanager
    def start() -> Iterator[Ask]:
        with Hosts(3) as hosts:
            cluster = PlainCluster(hosts, [f"model.path={checkpoint}", "model.dtype=bfloat16", *settings])
            address = cluster.serves[0].address
            yield lambda work, round_: ask_eightwinds(address, work, round_)
            cluster.close()

    return System(name, start)


def llama(folder: Path, gguf: Path) -> System:
    """Its server on the first host, a worker on each of the others (three or more of them deadlock)."""

    @contextmanager
    def start() -> Iterator[Ask]:
        cores = str(os.cpu_count() or 1)
        with Hosts(3) as hosts:
            server, *workers = hosts.all
            for worker in workers:
                rpc = [str(folder / "ggml-rpc-server"), "-H", worker.address, "-p", str(_RPC_PORT), "-t", cores]
                _run(worker, rpc)
            command = [str(folder / "llama-server"), "-m", str(gguf), "-t", cores, "-tb", cores, "-b", "2048"]
            command += [
                "-np",
                str(_SLOTS),
                "-c",
                str(_SLOTS * _SLOT_TOKENS),
                "--no-ui",
                "--cache-ram",
                "0",
                "-ngl",
                "99",
            ]
            command += ["--rpc", ",".join(f"{worker.address}:{_RPC_PORT}" for worker in workers)]
            _run(server, [*command, "--host", server.address, "--port", str(_HTTP_PORT)])
            _wait_until_healthy(server.address)
            yield lambda work, round_: _ask(server.address, work, round_)

    return System("llama.cpp, RPC", start)


def _run(host: Host, command: Sequence[str]) -> None:
    """It ends with its host."""
    with (host.disk / "tmp" / f"{Path(command[0]).name}.log").open("w") as log:
        subprocess.Popen(host.command(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _wait_until_healthy(address: str) -> None:
    begin = time.monotonic()
    while time.monotonic() < begin + _PATIENCE:
        try:
            connection = http.client.HTTPConnection(address, _HTTP_PORT, timeout=2)
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass  # not yet
        time.sleep(0.2)
    raise SystemExit(f"llama-server is not ready after {_PATIENCE:g} s")


def _ask(address: str, work: Work, round_: int) -> Timing:
    prompts, began = work.prompts(round_), time.perf_counter()
    with ThreadPoolExecutor(work.count) as pool:
        firsts = list(pool.map(lambda ids: _stream(address, ids, work.tokens), prompts))
    return Timing(time.perf_counter() - began, statistics.median(firsts))


def _stream(address: str, ids: list[int], tokens: int) -> float:
    """Seconds to the first token."""
    body = {"prompt": ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    body |= {"cache_prompt": False, "logit_bias": [[byte, False] for byte in _BYTES]}
    connection, began = http.client.HTTPConnection(address, _HTTP_PORT, timeout=_PATIENCE), time.perf_counter()
    connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
    first, count = 0.0, 0
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            first = first or time.perf_counter() - began
            count = json.loads(line[6:]).get("tokens_predicted", 0)  # the last event tells it
    if count != tokens:
        raise SystemExit(f"{count} tokens instead of {tokens}")
    return first


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--llama", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--gguf", type=Path, required=True, metavar="FILE")
    parser.add_argument("--work", type=Work.parse, nargs="+", default=[Work.parse(text) for text in _WORKS])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not jail.inside():
        if lack := jail.lacks():
            parser.error(lack)
        return jail.run_inside("benchmarks.peers.hosts", sys.argv[1:])
    jail.furnish()
    checkpoint = str(arguments.checkpoint.resolve())
    peer = llama(arguments.llama.resolve(), arguments.gguf.resolve())
    systems = [eightwinds("eightwinds", checkpoint), peer]
    systems.append(eightwinds("eightwinds, object refs", checkpoint, "transport=object_refs"))
    timings = measure(systems, arguments.work, arguments.rounds)
    title = f"Output tokens per second over three hosts on one machine, median of {arguments.rounds} rounds"
    publish("peers_hosts", title, *table(timings, arguments.work, peer.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
