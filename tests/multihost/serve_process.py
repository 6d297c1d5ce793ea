"""A serve process on a host, and waiting for what it brings about."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import grpc
import psutil

from tests.multihost.hosts import PYTHON, Host

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
_PATIENCE = 240.0


class Serve:
    """A serve process on a host, on a network of its own."""

    security: Sequence[str] = ("--insecure",)
    environment: Mapping[str, str] = ENVIRONMENT

    def __init__(self, host: Host, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """The `environment` goes beside that of its kind."""
        self.address, self._host = f"{host.address}:50051", host
        command = [PYTHON, "-m", "cluster.cli", "serve", f"--listen={self.address}", f"--http={host.address}:8000"]
        command += [*self.security, *arguments]
        self.log = host.disk / "tmp" / f"serve-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                host.command(command, {**self.environment, **(environment or {})}),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._line = ""
        self._said = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ready "):
                self._line = line
                self._said.set()
        self._said.set()

    def wait_ready(self) -> Self:
        """Wait for the ready line."""
        assert self._said.wait(_PATIENCE) and self._line, f"serve is not ready: {self.log.read_text()[-3000:]}"
        return self

    def wait_standby(self) -> Self:
        """Wait until it says that another one leads."""
        wait(lambda: "standing by: " in self.log.read_text(), "another server to stand by", self.log.read_text)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM, upon which the actors end, too."""
        self._end(signal.SIGTERM)

    def _end(self, signum: signal.Signals) -> None:
        (process,) = psutil.Process(self._process.pid).children()  # of nsenter's, which only waits for it
        process.send_signal(signum)
        self._process.wait(60)


def wait(condition: Callable[[], bool], what: str, story: Callable[[], str] = str) -> float:
    """Wait until it holds; how many seconds it took. `story` is told if it does not come to pass."""
    begin = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - begin
        except grpc.RpcError as error:
            if time.monotonic() > begin + _PATIENCE:
                raise AssertionError(f"{what}: the server does not answer: {error}") from None
        assert time.monotonic() < begin + _PATIENCE, f"{what}: not within {_PATIENCE:g} s\n{story()}"
        time.sleep(0.1)
