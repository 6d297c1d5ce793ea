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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.findings import Findings
from benchmarks.gpu.plan import Step, seconds_for

_RESERVE = 3.0  # seconds of the whole run that are kept for its end
_OVERTIME = 7.0  # ... that it may take longer, to clean up after its last step
_PATIENCE = 12.0  # ... that a step has at most to clean up when its time is over: actors and their contexts take some
STEP = (sys.executable, "-m", "benchmarks.gpu.step")


def run(
    steps: Sequence[Step],
    out: Path,
    seconds: float,
    arguments: Sequence[str],
    site: Path,
    ended: Callable[[str], None] = lambda name: None,
    program: Sequence[str] = STEP,
) -> None:
    """Run the steps one after the other within so many seconds; `arguments` are passed on to each. `site` is for their
    import path, and need not be there yet; `ended` is told the name of each step that has ended.
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
            command += ["--seconds", f"{allowed:.1f}"]
            _run(step, findings, allowed, command, environment, end + _RESERVE + _OVERTIME)
            ended(step.name)


def _run(
    step: Step, findings: Findings, allowed: float, command: Sequence[str], environment: dict[str, str], last: float
) -> None:
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
            _stop(child, last)
            log.seek(0)
            sys.stderr.write(log.read()[-4000:])
            _tidy(environment, last)


def _last_line(text: str) -> str:
    """The last line that is no part of a message's inside: what a traceback ends with may go over several lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    outer = [line for line in lines if line[0].isalpha()]
    return (outer or lines or [""])[-1].strip()[:300]


def _stop(child: "subprocess.Popen[bytes]", last: float) -> None:
    """End a step's whole session: politely, so that it takes down the servers it has started, then for certain. All of
    it by `last`, on the monotonic clock.
    """
    polite = max(0.5, min(_PATIENCE, last - 3.0 - time.monotonic()))
    for signum, patience in ((signal.SIGTERM, polite), (signal.SIGKILL, 1.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)


@contextlib.contextmanager
def _state_folder() -> Iterator[dict[str, str]]:
    """The steps' environment, with a folder of this run's own for what servers keep there."""
    state = tempfile.mkdtemp(prefix="ewg-", dir="/tmp")  # short, because of Ray's sockets
    try:
        quiet = {"RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
        yield os.environ | {"EIGHTWINDS_STATE": state, "TMPDIR": state} | quiet
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _tidy(environment: dict[str, str], last: float) -> None:
    """Remove every local Ray that a stopped step could not remove itself, and what else lies about."""
    folder = Path(environment["EIGHTWINDS_STATE"])
    for state in {record.parents[2] for record in folder.rglob("eightwinds-*/*/cluster.json")}:
        down = [sys.executable, "-m", "cluster.cli", "down"]
        own = environment | {"EIGHTWINDS_STATE": str(state)}
        with contextlib.suppress(subprocess.TimeoutExpired):
            limit = max(2.0, last - time.monotonic())
            subprocess.run(down, env=own, stdout=subprocess.DEVNULL, check=False, timeout=limit)
    for path in folder.iterdir():
        shutil.rmtree(path, ignore_errors=True)
