"""Starts `eightwinds serve` as an operator would, and looks at what it leaves behind."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from cluster.client.client import Client
from cluster.launch.local_ray.record import LocalRay

START_SECONDS = 180


class Server:
    """A serve process with ports, namespace and state folder of its own."""

    def __init__(
        self, *arguments: str, state: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.state = state or Path(tempfile.mkdtemp(prefix="ew-"))
        self.environment = os.environ | {"EIGHTWINDS_STATE": str(self.state), "RAY_AUTH_MODE": "disabled"}
        self.environment |= environment or {}
        self._arguments = arguments
        self.errors = (self.state / "stderr.log").open("w+")
        self.ready: dict[str, str] = {}
        self.local: LocalRay | None = None
        self._start()

    def _start(self, *more: str) -> None:
        command = [sys.executable, "-m", "cluster.cli", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, *self._arguments, *more],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=self.environment,
        )
        self._seen = threading.Event()
        threading.Thread(target=self._read, args=(self.process, self._seen), daemon=True).start()

    def start_again(self) -> None:
        """Another `serve` after one that has ended, with the same state."""
        self._start()

    def replace(self) -> None:
        """SIGKILL it and start another on the same address, as a supervisor does."""
        self.process.kill()
        self.process.wait()
        self._start("--listen", self.address)

    def _read(self, process: "subprocess.Popen[str]", seen: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ready "):
                self.ready = dict(part.split("=", 1) for part in line.split()[1:])
                self.local = None if "--ray-address" in self._arguments else self._record()
                seen.set()
        seen.set()

    def _record(self) -> LocalRay:
        """The one that this process owns, of those that other servers may have in the same folder."""
        found = [LocalRay(**json.loads(path.read_text())) for path in self.state.glob("*/*/cluster.json")]
        (mine,) = [local for local in found if local.owner_pid == self.process.pid]
        return mine

    def actors(self) -> set[int]:
        """Processes of its actors that live."""
        assert self.local is not None
        found = set()
        for pid in self.local.pids():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends just now
                if " ".join(psutil.Process(pid).cmdline()).startswith(("ray::HeadActor", "ray::ExpertActor")):
                    found.add(pid)
        return found

    def close(self) -> None:
        """End it whatever its state, and what it left behind."""
        if self.process.poll() is None:
            self.stop()
        self.command("down")
        shutil.rmtree(self.state, ignore_errors=True)

    def wait_ready(self, seconds: float = START_SECONDS) -> "Server":
        """Wait for the ready line."""
        assert self._seen.wait(seconds), f"not ready in {seconds:g} s: {self.stderr()}"
        assert self.ready, f"serve ended before it was ready: {self.stderr()}"
        return self

    def wait_stderr(self, text: str) -> None:
        """Wait until it has said `text`."""
        wait_for(lambda: text in self.stderr() or self.process.poll() is not None, f"{text!r} on stderr")

    def stderr(self) -> str:
        """What it said so far."""
        self.errors.seek(0)
        return self.errors.read()

    @property
    def address(self) -> str:
        """Its gRPC address."""
        return self.ready["grpc"]

    def client(self) -> Client:
        """A connection to it."""
        return Client(self.address)

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(60)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Another eightwinds command with the same state folder."""
        command = [sys.executable, "-m", "cluster.cli", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)

    def leftovers(self) -> list[str]:
        """Processes and files that belong to this server's state folder and should not exist after it."""
        found = [str(path) for path in self.state.glob("eightwinds-*")]
        for process in psutil.process_iter(["cmdline", "status"]):
            if process.info["status"] != psutil.STATUS_ZOMBIE and str(self.state) in " ".join(
                process.info["cmdline"] or []
            ):
                found.append(f"process {process.pid}: {' '.join(process.info['cmdline'])[:80]}")
        return found + [f"process {pid}" for pid in (self.local.pids() if self.local else [])]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)
