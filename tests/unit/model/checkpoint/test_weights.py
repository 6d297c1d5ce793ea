"""Reading tensors by name: only those, in the dtype wanted, and nothing of the file kept."""

import os
from pathlib import Path

import pytest
import torch

from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Tensors, torch_dtype
from tests.checkpoints import random_weights, tiny, write


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_tensors_come_in_the_dtype_wanted(stored: str, wanted: str, tmp_path: Path) -> None:
    weights = random_weights(tiny(dtype=stored))
    checkpoint = Checkpoint.open(write(tmp_path, tiny(dtype=stored), weights, shards=2))
    read = Tensors(checkpoint, checkpoint.tensors, torch_dtype(wanted))
    assert read.keys() == weights.keys()
    for name, tensor in read.items():
        assert torch.equal(tensor, weights[name].to(torch_dtype(wanted)))


def test_files_without_own_tensors_are_not_touched(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write(tmp_path, tiny(), shards=4))
    own = [name for name, entry in checkpoint.tensors.items() if entry.file.name.startswith("model-00002")]
    for file in tmp_path.glob("*.safetensors"):
        if not file.name.startswith("model-00002"):
            file.unlink()
    assert dict(Tensors(checkpoint, own, torch.float32)).keys() == set(own)


def test_tensors_outlive_their_file(tmp_path: Path) -> None:
    """They are copies: a page of the mapping kept for one tensor would keep its neighbours' in memory, too."""
    weights = random_weights(tiny())
    checkpoint = Checkpoint.open(write(tmp_path, tiny(), weights))
    name = "model.norm.weight"
    tensor = Tensors(checkpoint, [name], torch.float32)[name]
    file = tmp_path / "model.safetensors"
    with file.open("r+b") as stream:
        stream.write(b"\0" * os.path.getsize(file))
    assert torch.equal(tensor, weights[name])
    assert tensor.untyped_storage().nbytes() == weights[name].nbytes


def test_progress_is_told_the_stored_bytes_of_each_tensor(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write(tmp_path, tiny(dtype="bfloat16"), shards=3))
    names, told = checkpoint.expert_names(5), list[int]()
    dict(Tensors(checkpoint, names, torch.float32, progress=told.append))
    assert sum(told) == checkpoint.nbytes(names) and len(told) == len(names)


def test_unknown_dtype_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'int8' is none of float32, bfloat16, float16"):
        torch_dtype("int8")
