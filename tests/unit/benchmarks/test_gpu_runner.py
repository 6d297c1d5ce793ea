"""The runner of `python -m benchmarks.gpu`: its limits, and what it leaves when a step, or all of it, is cut off."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from benchmarks.gpu import findings
from benchmarks.gpu.findings import Findings
from benchmarks.gpu.flash.library import FlashLibrary
from benchmarks.gpu.plan import STEPS, Step, chosen, seconds_for
from benchmarks.gpu.runner import run

# A step that does what its name says; a child of it would outlive it if nobody ended its session.
SCRIPT = """
import signal, subprocess, sys, time
from pathlib import Path
from benchmarks.gpu.findings import Findings
name, out = sys.argv[1], Path(sys.argv[3])
pen = Findings(out, name)
pen.begin("a step of a test")
pen.fact("argument", " ".join(sys.argv[4:]))
if name == "fails":
    raise RuntimeError("no kernel image")
if name == "hangs":
    child = subprocess.Popen(["sleep", "600"])
    (out / "child").write_text(str(child.pid))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
pen.check("it holds", name != "wrong")
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "step.py").write_text(SCRIPT)
    return (sys.executable, str(tmp_path / "step.py"))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())


def steps(*names: str) -> list[Step]:
    return [Step(name, 5.0, 0.0) for name in names]


def outcomes(out: Path) -> dict[str, str]:
    return {r["step"]: r["outcome"] for r in findings.read(out) if r["kind"] == "end"}


def test_a_step_that_fails_says_why_and_the_next_one_runs(tmp_path: Path, program: tuple[str, ...]) -> None:
    run(steps("fails", "wrong", "right"), tmp_path, 60, ["--rehearsal"], tmp_path / "site", program=program)
    assert outcomes(tmp_path) == {"fails": "failed", "wrong": "done", "right": "done"}
    records = findings.read(tmp_path)
    assert findings.failed(records) == ["fails: RuntimeError: no kernel image", "wrong: it holds"]
    assert "--rehearsal --seconds 5.0" in next(r["value"] for r in records if r["kind"] == "fact")
    page = (tmp_path / findings.PAGE).read_text()
    assert "| fails | failed |" in page and "**DOES NOT HOLD**: it holds" in page


def test_a_step_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, program: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu.runner._PATIENCE", 0.2)
    run([Step("hangs", 2.0, 0.0)], tmp_path, 60, [], tmp_path / "site", program=program)
    assert outcomes(tmp_path) == {"hangs": "out of time"}
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < end, "what the step started outlives it"
        time.sleep(0.02)  # a real process ends when it ends: its time is no argument


def test_what_there_is_no_time_for_is_named(tmp_path: Path, program: tuple[str, ...]) -> None:
    run([Step("right", 5.0, 4.0), Step("later", 5.0, 30.0)], tmp_path, 20, [], tmp_path / "site", program=program)
    assert outcomes(tmp_path) == {"right": "done", "later": "left out"}
    assert findings.unfinished(findings.read(tmp_path)) == ["later: left out, there was no time left for it"]


def test_a_step_gets_its_limit_or_what_is_left() -> None:
    assert seconds_for(Step("a", 30, 5), 100) == 30
    assert seconds_for(Step("a", 30, 5), 12) == 12
    assert seconds_for(Step("a", 30, 5), 4.9) == 0


def test_steps_are_chosen_by_name_in_the_order_of_their_worth() -> None:
    assert chosen([]) == list(STEPS)
    assert [step.name for step in chosen(["server", "facts"])] == ["facts", "server"]
    with pytest.raises(ValueError, match="no step is called fact; there are facts, parity"):
        chosen(["fact"])


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    pen = Findings(tmp_path, "facts")
    pen.fact("card", "a | b")
    with (tmp_path / findings.LOG).open("a") as log:
        log.write('{"step": "facts", "ki')
    assert [r["value"] for r in findings.read(tmp_path)] == ["a | b"]


def test_several_may_write_at_the_same_time(tmp_path: Path) -> None:
    def write(name: str) -> None:
        for number in range(100):
            Findings(tmp_path, name).fact("number", number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    assert len(findings.read(tmp_path)) == 400
    assert not list(tmp_path.glob(".*"))


def test_a_build_is_ended_with_its_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ninja makes each of them a process group of its own."""
    script = "import subprocess; subprocess.Popen(['sleep', '600'], process_group=0); print('up', flush=True); input()"
    library = FlashLibrary(tmp_path, tmp_path)
    library._build = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert library._build.stdout is not None and library._build.stdout.readline() == "up\n"
    session = library._build.pid
    library.remove()
    end = time.monotonic() + 5
    while any(p.status() != "zombie" for p in psutil.process_iter() if in_session(p, session)):
        assert time.monotonic() < end, "a compiler outlives the build"
        time.sleep(0.02)  # a real process ends when it ends: its time is no argument
    assert not library.site.parent.exists()


def in_session(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session
    except OSError:
        return False


def test_a_table_has_the_columns_of_all_its_rows(tmp_path: Path) -> None:
    pen = Findings(tmp_path, "layers")
    pen.row("times", {"rows": 1, "ms": 2.0})
    pen.row("times", {"rows": 8, "why": "out | of memory"})
    page = findings.render(findings.read(tmp_path))
    assert "| rows | ms | why |" in page and "| 8 |  | out / of memory |" in page


def test_killed_at_any_moment_it_leaves_valid_files(tmp_path: Path) -> None:
    """The real command, killed while its first steps run; the step ends by itself, since its parent is gone."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--rehearsal", "--out", str(tmp_path), "facts", "invariance"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    end = time.monotonic() + 30
    while not (tmp_path / findings.LOG).exists():
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.02)  # a real process ends when it ends: its time is no argument
    child.send_signal(signal.SIGKILL)
    child.wait()
    lines = (tmp_path / findings.LOG).read_text().splitlines()
    assert lines and all(json.loads(line)["step"] == "facts" for line in lines)
    assert (tmp_path / findings.PAGE).read_text().startswith("# What the device showed")
