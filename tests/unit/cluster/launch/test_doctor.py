"""Doctor's findings about a checkpoint."""

import shutil
from pathlib import Path

import pytest

from cluster.engine.served_model import DEMO_FOLDER
from cluster.launch.doctor import Finding, examine
from tests.packed_checkpoints import Way, packable, write_packed

SETTINGS = ("experts.count=4", "gateway.listen=127.0.0.1:0", "gateway.http=127.0.0.1:0", "runtime=in_process")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of 4 bits with the demo's vocabulary."""
    monkeypatch.setenv("EIGHTWINDS_STATE", str(tmp_path / "state"))
    write_packed(tmp_path / "packed", Way("awq", 128), packable(vocab_size=2048))
    shutil.copy(DEMO_FOLDER / "tokenizer.model", tmp_path / "packed")
    return tmp_path / "packed"


def checkpoint(folder: Path, *settings: str) -> Finding:
    found = examine(None, [f"model.path={folder}", *SETTINGS, *settings])
    return next(finding for finding in found if finding.subject == "checkpoint")


def test_it_says_in_which_form_experts_are_held(folder: Path) -> None:
    as_stored, unpacked = checkpoint(folder), checkpoint(folder, "experts.quantization=none")
    assert as_stored.level == unpacked.level == "ok"
    assert as_stored.text.endswith("as they are served, in float16, experts in int4")
    assert unpacked.text.endswith("as they are served, in float16")


def test_what_cannot_stay_in_four_bits_fails_with_the_key(folder: Path) -> None:
    finding = checkpoint(folder, "experts.num_gpus=1")
    assert finding.level == "fail" and "set experts.quantization to int8 (" in finding.text
