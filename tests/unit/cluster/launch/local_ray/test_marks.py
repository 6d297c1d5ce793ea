"""Processes are found by what they carry, not by numbers or times."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.launch.local_ray.marks import end, holder, mark, marked


def sleeper(value: str, code: str = "input()") -> "subprocess.Popen[str]":
    code = f"print('up', flush=True); {code}"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | mark(value),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    return child


def test_those_that_carry_the_mark_are_found_and_ended_and_no_others() -> None:
    value = f"test-{os.getpid()}"
    ours, other = sleeper(value), sleeper(value + "-other")
    assert marked()[value] == [ours.pid] and marked()[value + "-other"] == [other.pid]
    end(value)
    assert ours.wait(5) != 0 and other.poll() is None
    assert value not in marked()
    other.communicate("\n")


def test_they_are_ended_where_python_knows_no_handles_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    value = f"test-old-{os.getpid()}"
    ours = sleeper(value)
    end(value)
    assert ours.wait(5) != 0


def test_a_child_of_a_marked_process_is_found_when_its_parent_has_ended() -> None:
    value = f"test-orphan-{os.getpid()}"
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    parent = sleeper(value, code)
    parent.wait(10)
    (child,) = marked()[value]
    assert child != parent.pid
    end(value)
    assert value not in marked()


def test_one_that_does_not_hear_a_polite_signal_is_ended_all_the_same() -> None:
    value = f"test-deaf-{os.getpid()}"
    deaf = sleeper(value, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()")
    assert deaf.stdout is not None
    deaf.stdout.readline()
    end(value, patience=0.1)
    assert deaf.wait(5) == -9


def test_one_that_ended_and_was_not_waited_for_does_not_count() -> None:
    value = f"test-zombie-{os.getpid()}"
    child = sleeper(value)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert value not in marked()
    child.communicate()


def test_who_has_a_folder_open_is_found_even_when_it_was_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "used"
    folder.mkdir()
    assert holder(folder) is None
    fd = os.open(folder, os.O_RDONLY)
    assert holder(folder) == os.getpid()
    folder.rmdir()
    assert holder(folder) == os.getpid()
    os.close(fd)
    assert holder(folder) is None
