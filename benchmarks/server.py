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

_EIGHTWINDS = [sys.executable, "-m", "cluster.cli"]


@dataclass(frozen=True, slots=True)
class Server:
    """A ready server: its gRPC and HTTP addresses and its process."""

    address: str
    http: str
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
        """Its standard error so far."""
        return (self.state / "stderr.log").read_text(encoding="utf-8")


@contextmanager
def serving(*settings: str) -> Iterator[Server]:
    """A server of the demo checkpoint with these settings (a.b=c); it ends with the block."""
    with state_folder() as state, serving_in(state, *settings) as server:
        yield server


@contextmanager
def state_folder() -> Iterator[Path]:
    """Where servers that follow each other keep what they leave to the next; nothing of it outlives the block."""
    state = Path(tempfile.mkdtemp(prefix="ewb-"))
    try:
        yield state
    finally:
        subprocess.run([*_EIGHTWINDS, "down"], env=_environment(state), stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(state, ignore_errors=True)


@contextmanager
def serving_in(state: Path, *settings: str, keep_actors: bool = False) -> Iterator[Server]:
    """A server that adopts the actors that one before has kept in this folder, and keeps them for the next if asked."""
    command = [*_EIGHTWINDS, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    command += [word for setting in settings for word in ("--set", setting)] + ["--keep-actors"] * keep_actors
    with (state / "stderr.log").open("w") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment(state))
    try:
        assert child.stdout is not None
        ready = child.stdout.readline()
        if not ready.startswith("ready "):
            raise SystemExit(f"serve did not become ready:\n{(state / 'stderr.log').read_text()}")
        addresses = dict(word.split("=", 1) for word in ready.split()[1:])
        yield Server(addresses["grpc"], addresses["http"], psutil.Process(child.pid), state)
    finally:
        child.terminate()
        child.wait(90)


def _environment(state: Path) -> dict[str, str]:
    return os.environ | {"EIGHTWINDS_STATE": str(state), "RAY_AUTH_MODE": "disabled"}
