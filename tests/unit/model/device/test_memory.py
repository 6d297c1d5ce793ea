"""Free memory is what the machine has and the container's limit leaves."""

from pathlib import Path

import psutil
import pytest
import torch

from model.device.memory import free_bytes

CPU = torch.device("cpu")
TERABYTE = 1 << 40


def cgroup(folder: Path, limit: str, used: int = 0, cached: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    return folder


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> int:
    found = psutil.virtual_memory()._replace(available=TERABYTE)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)
    return TERABYTE


def test_a_container_leaves_its_limit_less_what_is_used_and_cannot_be_dropped(tmp_path: Path, available: int) -> None:
    assert free_bytes(CPU, cgroup(tmp_path, "1000", used=700, cached=200)) == 500
    assert free_bytes(CPU, cgroup(tmp_path, "1000", used=1700, cached=200)) == 0
    assert free_bytes(CPU, cgroup(tmp_path, str(9 * TERABYTE))) == available


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path, available: int) -> None:
    assert free_bytes(CPU, tmp_path) == available
    assert free_bytes(CPU, cgroup(tmp_path, "max")) == available
