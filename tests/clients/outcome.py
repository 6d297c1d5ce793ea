"""A client's scripts, run one after the other, and what came of them."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.report import say
from tests.clients.catalogue import Client
from tests.clients.checks import FAILED, OK, RELEASES, Target
from tests.clients.environment import CannotInstall, python_of

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Outcome:
    """Checks that passed, and why others failed; `lack` says why the client could not be installed."""

    client: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    releases: str = ""
    seconds: float = 0.0
    lack: str = ""

    def cells(self) -> list[str]:
        notes = f"cannot be installed: {self.lack}" if self.lack else "; ".join(self.failed)
        return [self.client, self.releases, str(self.passed), str(len(self.failed)), f"{self.seconds:.0f}", notes]

    def read(self, line: str) -> None:
        """A line of a script."""
        if line.startswith(OK):
            self.passed += 1
        elif line.startswith(FAILED):
            self.failed.append(line.removeprefix(FAILED))
        elif line.startswith(RELEASES):
            self.releases = line.removeprefix(RELEASES)


def run(name: str, client: Client, target: Target, venvs: Path) -> Outcome:
    """Install it, if it is not, and run its scripts."""
    outcome = Outcome(name)
    try:
        python = Path(sys.executable)
        if client.requirements:
            python = python_of(venvs / name, client.requirements, client.unwanted)
    except CannotInstall as error:
        outcome.lack = str(error)
        return outcome
    begin = time.monotonic()
    for script in client.scripts:
        run_script(outcome, python, script, asdict(target), client.seconds)
    outcome.seconds = time.monotonic() - begin
    return outcome


def environment_of(python: Path) -> dict[str, str]:
    """Of a script's process. Nothing that a client might fetch or tell is wanted: a hub's files, usage, prices."""
    found = os.environ | {"PYTHONPATH": str(_ROOT), "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    found |= {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "TOKENIZERS_PARALLELISM": "false"}
    return found | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run_script(outcome: Outcome, python: Path, script: str, target: dict[str, str], seconds: float) -> None:
    """A script that ends without a word, or does not end, has failed."""
    log = Path(target["folder"]) / f"{script}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(python), "-m", f"tests.clients.scripts.{script}", json.dumps(target)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=target["folder"],
            env=environment_of(python),
        )
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    assert process.stdout is not None
    told, failed = False, len(outcome.failed)
    for line in map(str.rstrip, process.stdout):
        if line.startswith((OK, FAILED, RELEASES)):
            told = told or line.startswith(RELEASES)
            outcome.read(line)
            say(f"  {script}: {line}")
    code = process.wait()
    timer.cancel()
    if not told:
        outcome.failed.append(f"{script} did not come to its end (exit code {code})")
        say(f"  {script}: {outcome.failed[-1]}")
    if len(outcome.failed) > failed:
        say("\n".join(log.read_text(errors="replace").splitlines()[-40:]))
