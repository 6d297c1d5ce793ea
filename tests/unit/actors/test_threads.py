"""Threads of head and experts."""

import pytest

from actors import threads
from actors.threads import share_of, threads_for


@pytest.mark.parametrize(
    ("cores", "processes", "each"),
    [(2, 1, 2), (2, 8, 1), (16, 8, 2), (16, 3, 5), (1, 1, 1), (64, 0, 64)],
    ids=["a head", "more experts than cores", "experts", "three of a host", "one core", "none yet"],
)
def test_processes_that_compute_together_share_the_cores(cores: int, processes: int, each: int) -> None:
    assert share_of(cores, processes) == each


def test_a_small_model_computes_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 16)
    assert [threads_for(256, 1), threads_for(1024, 1), threads_for(4096, 8)] == [1, 16, 2]
