"""What the operator reads while weights load."""

import io
import sys
import time

import pytest

from cluster.launch.process.progress import ProgressLines, progress_line
from model.batch import LoadProgress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def state(*loaded: int, total: int = 100) -> dict[str, LoadProgress]:
    return {f"a{i}": LoadProgress(n, total, ready=n == total) for i, n in enumerate(loaded)}


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        ({}, "loading"),
        (state(0, 0), "loading: 0/2 actors ready, 0.0/0.0 MB"),
        (state(2_500_000, 5_000_000, total=5_000_000), "loading: 1/2 actors ready, 7.5/10.0 MB"),
        (state(3_210_000_000, 11_270_000_000, total=11_270_000_000), "loading: 1/2 actors ready, 14.5/22.5 GB"),
    ],
)
def test_a_line_sums_the_actors(progress: dict[str, LoadProgress], line: str) -> None:
    assert progress_line("loading", progress) == line


def test_lines_come_when_something_changed_and_at_most_one_a_second(now: list[float]) -> None:
    stream = io.StringIO()
    lines = ProgressLines(stream)
    for second, loaded in ((0.0, 0), (0.3, 10_000_000), (0.9, 20_000_000), (1.0, 30_000_000), (2.5, 30_000_000)):
        now[0] = second
        lines.report("loading", state(loaded, total=90_000_000))
    assert [line.split(", ")[1] for line in stream.getvalue().splitlines()] == ["0.0/90.0 MB", "30.0/90.0 MB"]


def test_the_line_that_says_all_are_ready_is_never_left_out(now: list[float]) -> None:
    stream = io.StringIO()
    lines = ProgressLines(stream)
    lines.report("loading", state(5, 100))
    lines.report("loading", state(100, 100))
    lines.report("loading", state(100, 100))
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1/2", "2/2"]


def test_another_phase_is_another_line(now: list[float]) -> None:
    stream = io.StringIO()
    lines = ProgressLines(stream, interval=0.0)
    for phase in ("starting Ray", "starting Ray", "starting actors"):
        lines.report(phase, {})
    assert stream.getvalue() == "starting Ray\nstarting actors\n"


def test_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressLines(sys.stderr).report("starting", {})
    ProgressLines().report("starting", {})
    assert capsys.readouterr() == ("", "starting\nstarting\n")
