"""What actors are built from: the size of the KV cache, given and by default, and what doctor counts of it."""

from pathlib import Path

import pytest

from actors.specs import ActorSpec, kv_bytes
from cluster.launch import machine
from cluster.launch.specs import actor_specs
from cluster.settings.config import load_config
from model.checkpoint.folder import Checkpoint
from tests.checkpoints import tiny, write

TOKEN = 2 * 2 * 2 * 8 * 4  # keys and values, layers, KV heads, head_dim, bytes of fp32


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint.open(write(tmp_path, tiny()))


def head(checkpoint: Checkpoint, *settings: str) -> ActorSpec:
    return actor_specs(load_config(None, {}, settings), checkpoint)[0]


def test_by_default_the_cache_follows_free_memory_up_to_what_could_be_used(checkpoint: Checkpoint) -> None:
    spec = head(checkpoint, "scheduler.max_running_requests=3")
    assert kv_bytes(spec, 1 << 18) == 1 << 16, "a quarter"
    assert kv_bytes(spec, 1 << 40) == 3 * 256 * TOKEN, "three whole contexts"
    assert kv_bytes(head(checkpoint, "head.num_gpus=1"), 1000) == 800


def test_what_is_set_counts(checkpoint: Checkpoint) -> None:
    assert kv_bytes(head(checkpoint, "kv.memory_bytes=12345"), 1 << 40) == 12345
    assert kv_bytes(head(checkpoint, "kv.memory_share=0.5"), 1 << 40) == 1 << 39


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_doctor_counts_what_would_be_held(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what is stored, which is float32 here."""
    folder = write(tmp_path, tiny(hidden_size=256, intermediate_size=512))
    settings = ["runtime=in_process", f"model.path={folder}", f"model.dtype={dtype}", "kv.memory_bytes=4096"]
    config, checkpoint = load_config(None, {}, settings), Checkpoint.open(folder)
    monkeypatch.setattr(machine, "ACTOR_BYTES", 0)
    held = checkpoint.held_bytes(dtype)
    assert machine.memory_needed(config, held) == held + 4096
    assert held == checkpoint.nbytes(list(checkpoint.tensors)) // (1 if dtype == "float32" else 2)
