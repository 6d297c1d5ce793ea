"""Ray raises the same family for a process that is gone and for a bug of ours in one that lives; the log does not."""

import pytest
import ray.exceptions

from actors.remote.faults import OwnFaults


def task_error(cause: Exception) -> Exception:
    """The exception that `ray.get` raises when an actor's method has raised `cause`."""
    return ray.exceptions.RayTaskError("load", f"Traceback: {cause!r}", cause).as_instanceof_cause()  # type: ignore[no-any-return, no-untyped-call]


def test_a_bug_is_said_once_for_each_kind_and_place(caplog: pytest.LogCaptureFixture) -> None:
    faults = OwnFaults()
    for _ in range(3):
        faults.note("asking", task_error(KeyError("expert")))
    faults.note("asking", task_error(ZeroDivisionError("of ours")))
    faults.note("telling", task_error(KeyError("expert")))
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    assert "KeyError" in caplog.text and "while asking" in caplog.text and "while telling" in caplog.text


def test_a_process_that_is_gone_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    faults = OwnFaults()
    gone = [ray.exceptions.ActorDiedError(), ray.exceptions.GetTimeoutError("late"), ray.exceptions.RayError("away")]
    for error in gone:
        faults.note("asking", error)
    assert not caplog.records
