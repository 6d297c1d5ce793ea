"""An `eightwinds serve` process for a benchmark, with ports, namespace and state folder of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Server:
    """A ready server: its gRPC address and its process."""

    address: str
    process: psutil.Process
    state: Path

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Its processes by role: serve, actors, and Ray's own."""
        found: dict[str, list[psutil.Process]] = {"serve": [self.process], "actors": [], "ray": []}
        for process in psutil.process_iter(["cmdline", "environ"]):
            if process.pid == self.process.pid or str(self.state) not in str(process.info["environ"]):
                continue
            name = " ".join(process.info["cmdline"] or [])
            found["actors" if name.startswith(("ray::HeadActor", "ray::ExpertActor")) else "ray"].append(process)
        return found

    def log(self) -> str:
        """What it said on stderr."""
        return (self.state / "stderr.log").read_text(encoding="utf-8")


@contextmanager
def serving(*settings: str) -> Iterator[Server]:
    """A server of the demo checkpoint with these settings (a.b=c); it ends with the block."""
    state = Path(tempfile.mkdtemp(prefix="ewb-"))
    environment = os.environ | {"EIGHTWINDS_STATE": str(state), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "cluster.cli", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    command += [word for setting in settings for word in ("--set", setting)]
    with (state / "stderr.log").open("w") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        assert child.stdout is not None
        ready = child.stdout.readline()
        if not ready.startswith("ready "):
            raise SystemExit(f"serve did not become ready:\n{(state / 'stderr.log').read_text()}")
        address = dict(word.split("=", 1) for word in ready.split()[1:])["grpc"]
        yield Server(address, psutil.Process(child.pid), state)
    finally:
        child.terminate()
        child.wait(90)
        shutil.rmtree(state, ignore_errors=True)
