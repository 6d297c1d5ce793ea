"""What is set in the environment of a process that computes."""

import os
from collections.abc import Callable

import pytest

from actors.environment import let_threads_sleep, use_large_pages


@pytest.mark.parametrize(
    ("settle", "name", "value"),
    [(let_threads_sleep, "OMP_WAIT_POLICY", "passive"), (use_large_pages, "THP_MEM_ALLOC_ENABLE", "1")],
)
def test_what_the_operator_has_set_stays(
    settle: Callable[[], None], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "of the operator")
    settle()
    assert os.environ[name] == "of the operator"
    monkeypatch.delenv(name)
    settle()
    assert os.environ[name] == value
