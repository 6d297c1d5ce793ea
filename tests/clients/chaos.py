"""Sixteen streams of the openai client while experts and the head are killed: none may fail, and no text differ."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.report import say
from tests.chaos.victims import Victims, send
from tests.clients.catalogue import CLIENTS
from tests.clients.checkpoint import NAME
from tests.clients.checks import LEARNT, RELEASES
from tests.clients.environment import CannotInstall, python_of
from tests.clients.outcome import Outcome, environment_of
from tests.integration.server import Server

_LEAST = 32  # answers while something happened, below which nothing is shown
_SECONDS = 300.0


def run(checkpoint: Path, folder: Path, venvs: Path, kills: int) -> Outcome:
    """Every third kill is the head's, the others a random expert's only replica."""
    outcome, begin = Outcome("chaos"), time.monotonic()
    try:
        python = python_of(venvs / "openai", CLIENTS["openai"].requirements)
    except CannotInstall as error:
        outcome.lack = str(error)
        return outcome
    server = Server("--model", str(checkpoint), "--set", "model.dtype=float32")
    try:
        _kill_under(server.wait_ready(), python, folder, kills, outcome)
    finally:
        server.close()
    outcome.seconds = time.monotonic() - begin
    return outcome


def _kill_under(server: Server, python: Path, folder: Path, kills: int, outcome: Outcome) -> None:
    target = json.dumps({"base": f"http://{server.ready['http']}/v1", "model": NAME})
    with (folder / "chaos.log").open("w+") as errors:
        streams = subprocess.Popen(
            [str(python), "-m", "tests.clients.scripts.openai_chaos", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env=environment_of(python),
        )
        assert streams.stdout is not None
        try:
            if streams.stdout.readline().strip() == LEARNT:
                _kill(Victims(server), kills)
                told, _ = streams.communicate("\n", _SECONDS)
                _judge(json.loads(told), kills, outcome)
            else:
                errors.seek(0)
                outcome.failed.append(f"the texts could not be learnt: {errors.read()[-500:]}")
        finally:
            streams.kill()
    command = [str(python), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    outcome.read(RELEASES + next(line for line in listed if line.startswith("openai==")).replace("==", " "))


def _kill(victims: Victims, kills: int) -> None:
    rng = random.Random(2026)
    time.sleep(2.0)
    for number in range(kills):
        begin = time.monotonic()
        if number % 3 == 2:
            what = "the head"
            send(victims.head(), signal.SIGKILL)
            victims.wait_served()
        else:
            expert = rng.randrange(8)
            what = f"expert {expert}"
            (replica,) = victims.ready(expert)
            send(replica.pid, signal.SIGKILL)
            victims.wait_gone(expert, replica.pid)
            victims.wait_ready({expert: 1})
        say(f"  chaos: kill {number + 1} of {kills}, {what}: as before after {time.monotonic() - begin:.1f} s")
        time.sleep(rng.uniform(1.0, 3.0))


def _judge(told: dict[str, object], kills: int, outcome: Outcome) -> None:
    failed, different, done = told["failed"], told["different"], told["done"]
    assert isinstance(failed, list) and isinstance(done, int)
    say(f"  chaos: {done} answers around {kills} kills, {len(failed)} failed, {different} different")
    checks = {
        f"of {done} streams around {kills} kills {len(failed)} failed: {failed[:3]}": not failed,
        f"{different} of {done} texts differ from those of before": not different,
        f"only {done} answers came meanwhile": done >= _LEAST,
    }
    outcome.passed += sum(checks.values())
    outcome.failed += [text for text, good in checks.items() if not good]
