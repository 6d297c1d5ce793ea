"""`eightwinds serve` in one process, without Ray, on ports of its own."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.settings.tokens import Scope, append, new_token

_ROOT = Path(__file__).resolve().parents[2]
_END_SECONDS = 60
# An output at a time and 16 that wait: the next is told to come again.
NARROW = ("scheduler.max_running_requests=1", "gateway.max_queued_requests=16")


@dataclass(frozen=True, slots=True)
class Server:
    """HOST:PORT of its HTTP, its process, and its standard error."""

    http: str
    process: subprocess.Popen[str]
    log: Path


@contextlib.contextmanager
def serving(checkpoint: Path, *settings: str) -> Iterator[Server]:
    """It ends with the block; SystemExit if it does not begin."""
    words = ["--model", str(checkpoint), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    for setting in ("runtime=in_process", *settings):
        words += ["--set", setting]
    with tempfile.TemporaryDirectory(prefix="ew-clients-") as folder:
        log = Path(folder) / "log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "cluster.cli", "serve", *words],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=_ROOT,
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready "):
                raise SystemExit(f"serve did not become ready:\n{log.read_text()}")
            yield Server(dict(word.split("=", 1) for word in line.split()[1:])["http"], process, log)
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def write_token(file: Path) -> str:
    """A token for inference, whose hash goes into the file."""
    token, line = new_token("client", [Scope.INFERENCE])
    append(file, line)
    return token
