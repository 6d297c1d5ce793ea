"""What is watched while somebody abuses the server: 16 ordinary streams, its memory, and its log."""

import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks.load import percentile
from cluster.settings.tokens import Scope, append, new_token
from protos.eightwinds.v1 import inference_pb2 as pb
from protos.eightwinds.v1 import inference_pb2_grpc

_ROOT = Path(__file__).resolve().parent.parent.parent
_START_SECONDS = 60
DEADLINE = 60.0


class Server:
    """`eightwinds serve` without Ray, on ports of its own, with tokens for alice and for mallory."""

    def __init__(self, *settings: str, descriptors: int = 0) -> None:
        """With `descriptors` it may have so many open (ulimit -n)."""
        self._folder = tempfile.TemporaryDirectory(prefix="ew-abuse-")
        self._log = open(Path(self._folder.name) / "log", "w+")  # noqa: SIM115  # closed by `close`
        tokens = Path(self._folder.name) / "tokens"
        self.tokens = dict(_token(tokens, name) for name in ("alice", "mallory"))
        settings = (*settings, f"security.token_file={tokens}")
        words = ["-m", "cluster.cli", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        for setting in ("runtime=in_process", *settings):
            words += ["--set", setting]
        limit = f"ulimit -n {descriptors}; " if descriptors else ""
        command = ["bash", "-c", f'{limit}exec "$0" "$@"', sys.executable, *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=_ROOT, env={**os.environ}
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), self.log()
        ready = dict(part.split("=", 1) for part in line.split()[1:])
        self.address, self.http = ready["grpc"], ready["http"]
        self._memory = psutil.Process(self.process.pid)

    @property
    def resident(self) -> int:
        """Bytes of memory that it holds."""
        return int(self._memory.memory_info().rss)

    def log(self) -> str:
        """What it has written so far."""
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._log.close()
        self._folder.cleanup()


def _token(file: Path, name: str) -> tuple[str, str]:
    token, entry = new_token(name, Scope)
    append(file, entry)
    return name, token


class Streams:
    """`at_once` streams on threads of their own, each on a connection of its own, from `start` to `stop`."""

    def __init__(self, address: str, at_once: int = 16, token: str = "") -> None:
        self._address, self._at_once = address, at_once
        self._metadata = (("authorization", f"Bearer {token}"),) if token else None
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.gaps: list[float] = []
        self.failed: list[str] = []
        self.done = 0

    def start(self) -> "Streams":
        """Begin."""
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(self._at_once)]
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> "Streams":
        """End with the streams that are under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        return self

    def p99(self) -> float:
        """Of the gaps between two messages of a stream, in seconds; a stream that failed counts as infinite."""
        return percentile(self.gaps, 99) if self.gaps else float("inf")

    def _run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        request = pb.GenerateRequest(
            prompt=pb.Prompt(text="Once upon a time"),
            sampling=pb.Sampling(temperature=0.0),
            stopping=pb.Stopping(max_tokens=48, ignore_eos=True),
        )
        while not self._stopping.is_set():
            with grpc.insecure_channel(self._address, options) as channel:  # each stream is a newcomer
                stub = inference_pb2_grpc.InferenceServiceStub(channel)
                times: list[float] = [time.monotonic()]
                try:
                    call: Any = stub.GenerateStream(request, timeout=DEADLINE, metadata=tuple(self._metadata or ()))
                    times += [time.monotonic() for _ in call]
                except grpc.RpcError as error:
                    failed: Any = error
                    self.failed.append(f"{failed.code().name}: {failed.details()}")
                    self._stopping.wait(0.05)
                    continue
                self.done += 1
                self.gaps += [b - a for a, b in itertools.pairwise(times)]


class Spinner:
    """A process that only keeps a core busy: what an abuser's own work costs on this machine."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
