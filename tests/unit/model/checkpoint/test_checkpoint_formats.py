"""Folders as people have them: no dtype in config.json, Git LFS pointers, weights in other formats."""

import re
from pathlib import Path

import pytest

from model.checkpoint.folder import Checkpoint
from tests.checkpoints import random_weights, tiny, write

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return write(tmp_path, tiny())


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write(tmp_path, tiny(), shards=3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_without_a_dtype_in_the_file_it_is_the_one_that_the_tensors_are_stored_in(dtype: str, tmp_path: Path) -> None:
    """A bf16 checkpoint took twice its memory in fp32. A few finer tensors, as norms often are, change nothing."""
    tensors = random_weights(tiny(dtype=dtype))
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    checkpoint = Checkpoint.open(write(tmp_path, tiny(dtype=None), tensors))
    assert checkpoint.config.dtype == dtype
    numbers = sum(tensor.numel() for tensor in tensors.values())
    assert checkpoint.held_bytes("float32") == 4 * numbers == 2 * checkpoint.held_bytes("bfloat16")


@pytest.mark.parametrize("name", [SINGLE, "config.json"])
def test_a_git_lfs_pointer_is_named_for_what_it_is(name: str, single: Path) -> None:
    (single / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ValueError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        Checkpoint.open(single)


def test_a_pointer_in_place_of_the_index_or_a_shard_is_named_too(sharded: Path) -> None:
    for name in ("model-00002-of-00003.safetensors", INDEX):
        (sharded / name).write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(ValueError, match=rf"{name} is a Git LFS pointer"):
            Checkpoint.open(sharded)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pytorch_model-00001-of-00019.bin", "pickle format; only safetensors are read: save it again"),
        (
            "consolidated.00.pt",
            "Mistral's own layout in PyTorch's pickle format; only safetensors are read: fetch",
        ),
        ("mixtral.Q4_K_M.gguf", "llama.cpp's format"),
    ],
)
def test_other_formats_are_named_for_what_they_are(name: str, says: str, single: Path) -> None:
    (single / SINGLE).rename(single / name)
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        Checkpoint.open(single)
    assert says in str(caught.value)
