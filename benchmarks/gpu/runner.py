"""Runs the steps, each in a process of its own with a time limit, and ends whatever a step leaves behind.

A process each, because a kernel that goes wrong takes its whole CUDA context with it, and because only a process can be
stopped at any moment.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.findings import Findings
from benchmarks.gpu.plan import Step, seconds_for

_RESERVE = 3.0  # seconds of the whole run that are kept for its end
_PATIENCE = 4.0  # ... that a step has to clean up when its time is over
STEP = (sys.executable, "-m", "benchmarks.gpu.step")


def run(
    steps: Sequence[Step],
    out: Path,
    seconds: float,
    arguments: Sequence[str],
    site: Path,
    program: Sequence[str] = STEP,
) -> None:
    """Run the steps one after the other within so many seconds; `arguments` are passed on to each. `site` is for their
    import path, and need not be there yet.
    """
    end = time.monotonic() + seconds - _RESERVE
    with _state_folder() as environment:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), environment.get("PYTHONPATH"))))
        for step in steps:
            findings = Findings(out, step.name)
            allowed = seconds_for(step, end - time.monotonic())
            if not allowed:
                findings.end("left out", 0.0, "there was no time left for it")
                continue
            command = [*program, step.name, "--out", str(out), "--flash-site", str(site), *arguments]
            _run(step, findings, allowed, [*command, "--seconds", f"{allowed:.1f}"], environment)


def _run(step: Step, findings: Findings, allowed: float, command: Sequence[str], environment: dict[str, str]) -> None:
    print(f"{step.name}: up to {allowed:.0f} s", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        child = subprocess.Popen(command, stderr=log, env=environment, start_new_session=True)
        try:
            code = child.wait(allowed)
        except subprocess.TimeoutExpired:
            findings.end("out of time", time.monotonic() - began, f"it was stopped after {allowed:.0f} s")
        else:
            log.seek(0)
            why = "" if code == 0 else _last_line(log.read()) or f"exit code {code}"
            findings.end("failed" if code else "done", time.monotonic() - began, why)
        finally:
            _stop(child)
            log.seek(0)
            sys.stderr.write(log.read()[-4000:])
            _tidy(environment)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _stop(child: "subprocess.Popen[bytes]") -> None:
    """End a step's whole session: politely, so that it takes down the servers it has started, then for certain."""
    for signum, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, 1.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)


@contextlib.contextmanager
def _state_folder() -> Iterator[dict[str, str]]:
    """The steps' environment, with a folder of this run's own for what servers keep there."""
    state = tempfile.mkdtemp(prefix="ewg-")
    try:
        own = {"EIGHTWINDS_STATE": state, "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
        yield os.environ | own
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _tidy(environment: dict[str, str]) -> None:
    """Remove a local Ray that a stopped step could not remove itself."""
    if any(Path(environment["EIGHTWINDS_STATE"]).glob("eightwinds-*/*/cluster.json")):
        down = [sys.executable, "-m", "cluster.cli", "down"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(down, env=environment, stdout=subprocess.DEVNULL, check=False, timeout=10)
