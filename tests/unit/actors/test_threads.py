"""Threads of head and experts."""

import pytest

from actors.threads import share_of


@pytest.mark.parametrize(
    ("cores", "processes", "threads"),
    [(2, 1, 2), (2, 8, 1), (16, 8, 2), (16, 3, 5), (1, 1, 1), (64, 0, 64)],
    ids=["a head", "more experts than cores", "experts", "three of a host", "one core", "none yet"],
)
def test_processes_that_compute_together_share_the_cores(cores: int, processes: int, threads: int) -> None:
    assert share_of(cores, processes) == threads
