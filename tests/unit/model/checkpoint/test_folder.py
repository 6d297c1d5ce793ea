"""What `Checkpoint.open` accepts, what it refuses with which words, and what its digest tells apart."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint.entries import expected_shapes
from model.checkpoint.folder import Checkpoint
from model.config import MixtralConfig
from tests.checkpoints import random_weights, tiny, write

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
EXPERT_W2 = "model.layers.1.block_sparse_moe.experts.3.w2.weight"
GATE = "model.layers.0.block_sparse_moe.gate.weight"


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return write(tmp_path, tiny())


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write(tmp_path, tiny(), shards=3)


def shard(number: int) -> str:
    return f"model-{number:05}-of-00003.safetensors"


def shard_of(folder: Path, name: str) -> str:
    return str(json.loads((folder / INDEX).read_text())["weight_map"][name])


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a file."""
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


def edit_header(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a file's header and leave its data."""
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    replace_header(file, json.dumps(header).encode())


def replace_header(file: Path, header: bytes) -> None:
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])


def edit_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def edit_config(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_tensor_is_found_where_it_lies(shards: int, dtype: str, tmp_path: Path) -> None:
    weights = random_weights(tiny(dtype=dtype))
    checkpoint = Checkpoint.open(write(tmp_path, tiny(dtype=dtype), weights, shards))
    assert checkpoint.tensors.keys() == weights.keys()
    for name, entry in checkpoint.tensors.items():
        assert name in load_file(entry.file)
        assert (entry.name, entry.shape, entry.nbytes) == (name, tuple(weights[name].shape), weights[name].nbytes)
    assert len({entry.file for entry in checkpoint.tensors.values()}) == shards
    assert checkpoint.nbytes(list(weights)) == sum(tensor.nbytes for tensor in weights.values())


@pytest.mark.parametrize("experts", [4, 8, 12])
def test_each_tensor_belongs_to_the_head_or_to_one_expert(experts: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write(tmp_path, tiny(num_local_experts=experts)))
    shares = [checkpoint.head_names(), *(checkpoint.expert_names(e) for e in range(experts))]
    assert sorted(name for share in shares for name in share) == sorted(checkpoint.tensors)
    for expert in range(experts):
        assert sorted(checkpoint.expert_names(expert)) == sorted(
            f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{w}.weight"
            for layer in range(2)
            for w in ("w1", "w2", "w3")
        )
    assert GATE in checkpoint.head_names()


def test_single_file_goes_before_an_index_as_in_transformers(sharded: Path) -> None:
    save_file(random_weights(tiny()), sharded / SINGLE)
    (sharded / shard(2)).unlink()  # left over from a copy
    assert {entry.file.name for entry in Checkpoint.open(sharded).tensors.values()} == {SINGLE}


def test_old_rotary_buffers_are_passed_over(single: Path) -> None:
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4, dtype=torch.float64)}
    rewrite(single / SINGLE, lambda tensors: tensors.update(buffer))
    assert not buffer.keys() & Checkpoint.open(single).tensors.keys()


def test_tied_output_head_may_be_written_or_left_out(tmp_path: Path) -> None:
    content = tiny(tie_word_embeddings=True)
    folder = write(tmp_path, content)
    assert "lm_head.weight" not in Checkpoint.open(folder).tensors
    rewrite(folder / SINGLE, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(97, 32)}))
    assert "lm_head.weight" not in Checkpoint.open(folder).tensors


def test_expected_shapes_follow_the_configuration() -> None:
    shapes = expected_shapes(MixtralConfig())  # Mixtral 8x7B
    assert len(shapes) == 3 + 32 * (7 + 8 * 3)
    assert sum(a * (b[0] if b else 1) for a, *b in shapes.values()) == 46_702_792_704
    assert shapes["model.layers.31.self_attn.k_proj.weight"] == (1024, 4096)
    assert shapes["model.layers.31.block_sparse_moe.experts.7.w2.weight"] == (4096, 14336)


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / SINGLE, lambda tensors: tensors.pop(name))


def put(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / SINGLE, lambda tensors: tensors.update({name: tensor}))


def entry(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_header(folder / SINGLE, lambda header: header[name].update(changes))


def cut(at: Callable[[int], int]) -> Callable[[Path], None]:
    def truncate(folder: Path) -> None:
        os.truncate(folder / SINGLE, at((folder / SINGLE).stat().st_size))

    return truncate


SINGLE_REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no config": (lambda f: (f / "config.json").unlink(), ("no config.json",)),
    "config no JSON": (lambda f: (f / "config.json").write_text("{"), ("config.json", "not valid JSON")),
    "no weights": (lambda f: (f / SINGLE).unlink(), (SINGLE, INDEX, "weights are missing")),
    "tensor missing, head": (drop("model.norm.weight"), (SINGLE, "model.norm.weight is missing")),
    "tensor missing, expert": (drop(EXPERT_W2), (SINGLE, f"{EXPERT_W2} is missing")),
    "output head missing": (drop("lm_head.weight"), (SINGLE, "lm_head.weight is missing")),
    "config with a layer more": (lambda f: edit_config(f, num_hidden_layers=3), ("model.layers.2.", "is missing")),
    "config with a layer less": (lambda f: edit_config(f, num_hidden_layers=1), ("unexpected", "model.layers.1.")),
    "config with an expert less": (lambda f: edit_config(f, num_local_experts=7), ("gate", "asks for [7, 32]")),
    "config with other heads": (lambda f: edit_config(f, num_key_value_heads=4), ("k_proj", "[16, 32]", "[32, 32]")),
    "unexpected tensor": (put("model.layers.0.mlp.up.weight", torch.ones(2)), (SINGLE, "unexpected", "mlp.up.weight")),
    "unexpected bias": (put("lm_head.bias", torch.ones(97)), (SINGLE, "unexpected tensor lm_head.bias")),
    "wrong shape": (put(EXPERT_W2, torch.ones(24, 32)), (SINGLE, EXPERT_W2, "[24, 32]", "[32, 24]")),
    "a dimension too many": (put(GATE, torch.ones(1, 8, 32)), (SINGLE, GATE, "[1, 8, 32]", "[8, 32]")),
    "wrong dtype": (put(GATE, torch.ones(8, 32, dtype=torch.float64)), (SINGLE, GATE, "stored as F64")),
    "integers": (put(GATE, torch.ones(8, 32, dtype=torch.int8)), (SINGLE, GATE, "stored as I8")),
    "truncated by a byte": (cut(lambda size: size - 1), (SINGLE, "truncated", "copy it again")),
    "truncated by half": (cut(lambda size: size // 2), (SINGLE, "truncated: tensor ")),
    "truncated in the header": (cut(lambda size: 100), (SINGLE, "truncated", "header does not fit in 100 bytes")),
    "truncated in the length": (cut(lambda size: 5), (SINGLE, "truncated", "5 bytes")),
    "empty": (cut(lambda size: 0), (SINGLE, "truncated", "0 bytes")),
    "too long": (lambda f: append(f / SINGLE, b"\0"), (SINGLE, "its header describes", "copy it again")),
    "no safetensors": (lambda f: (f / SINGLE).write_bytes(b"PK\3\4" * 50), (SINGLE, "truncated")),
    "header no JSON": (lambda f: replace_header(f / SINGLE, b"#" * 64), (SINGLE, "no JSON")),
    "header no text": (lambda f: replace_header(f / SINGLE, b"\xff" * 64), (SINGLE, "no JSON")),
    "header a list": (lambda f: replace_header(f / SINGLE, b"[1, 2]"), (SINGLE, "no JSON object")),
    "entry a number": (
        lambda f: edit_header(f / SINGLE, lambda header: header.update({GATE: 7})),
        (SINGLE, f"entry of {GATE} is damaged"),
    ),
    "entry without a shape": (
        lambda f: edit_header(f / SINGLE, lambda header: header[GATE].pop("shape")),
        (SINGLE, f"entry of {GATE} is damaged"),
    ),
    "shape a word": (entry(GATE, shape="8"), (SINGLE, f"entry of {GATE} is damaged")),
    "shape negative": (entry(GATE, shape=[-8, -32]), (SINGLE, f"entry of {GATE} is damaged")),
    "shape other than its bytes": (entry(GATE, shape=[8, 31]), (SINGLE, f"entry of {GATE} is damaged")),
    "dtype other than its bytes": (entry(GATE, dtype="BF16"), (SINGLE, f"entry of {GATE} is damaged")),
    "dtype a list": (entry(GATE, dtype=["F32"]), (SINGLE, f"entry of {GATE} is damaged")),
    "dtype unknown": (entry(GATE, dtype="F8_E4M3"), (SINGLE, GATE, "stored as F8_E4M3")),
    "offsets words": (entry(GATE, data_offsets=["0", "1024"]), (SINGLE, f"entry of {GATE} is damaged")),
    "offsets three": (entry(GATE, data_offsets=[0, 1, 2]), (SINGLE, f"entry of {GATE} is damaged")),
    "offsets backwards": (entry(GATE, data_offsets=[2048, 1024]), (SINGLE, f"entry of {GATE} is damaged")),
    "offsets negative": (entry(GATE, data_offsets=[-1024, 0]), (SINGLE, f"entry of {GATE} is damaged")),
    "offsets past the end": (entry(GATE, data_offsets=[10**9, 10**9 + 1024]), (SINGLE, "truncated", GATE)),
}


def append(file: Path, more: bytes) -> None:
    file.write_bytes(file.read_bytes() + more)


@pytest.mark.parametrize("name", SINGLE_REFUSED)
def test_what_is_wrong_with_a_single_file_is_named(name: str, single: Path) -> None:
    damage, words = SINGLE_REFUSED[name]
    Checkpoint.open(single)
    damage(single)
    with pytest.raises(ValueError) as raised:
        Checkpoint.open(single)
    for word in words:
        assert word in str(raised.value)


def duplicate(folder: Path) -> None:
    """Put a tensor of shard 1 into shard 3 as well."""
    name, tensor = next(iter(load_file(folder / shard(1)).items()))
    rewrite(folder / shard(3), lambda tensors: tensors.update({name: tensor}))


def folder_for_a_shard(folder: Path) -> None:
    (folder / shard(2)).unlink()
    (folder / shard(2)).mkdir()


SHARDED_REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "shard missing": (lambda f: (f / shard(2)).unlink(), (INDEX, shard(2), "copy the missing shard")),
    "shard a folder": (folder_for_a_shard, (INDEX, shard(2))),
    "shard truncated": (lambda f: os.truncate(f / shard(3), 5000), (shard(3), "truncated: tensor ")),
    "tensor missing": (
        lambda f: rewrite(f / shard_of(f, GATE), lambda tensors: tensors.pop(GATE)),
        (INDEX, f"{GATE} is missing"),
    ),
    "unexpected tensor": (
        lambda f: rewrite(f / shard(2), lambda tensors: tensors.update(more=torch.ones(1))),
        (shard(2), "unexpected tensor more"),
    ),
    "wrong shape": (
        lambda f: rewrite(f / shard_of(f, GATE), lambda tensors: tensors.update({GATE: torch.ones(3)})),
        (shard(1), GATE, "[3]"),
    ),
    "tensor in two shards": (duplicate, (shard(3), "is also in", shard(1))),
    "index no JSON": (lambda f: (f / INDEX).write_text("{"), (INDEX, "not a safetensors index")),
    "index no text": (lambda f: (f / INDEX).write_bytes(b"\xff\xff"), (INDEX, "not a safetensors index")),
    "index a list": (lambda f: (f / INDEX).write_text("[]"), (INDEX, "not a safetensors index")),
    "index without a map": (lambda f: edit_index(f, lambda i: i.pop("weight_map")), (INDEX, "no weight_map")),
    "index with a list": (lambda f: edit_index(f, lambda i: i.update(weight_map=[])), (INDEX, "no weight_map")),
    "index with numbers": (lambda f: edit_index(f, lambda i: i.update(weight_map={"a": 1})), (INDEX, "no weight_map")),
    "index of nothing": (lambda f: edit_index(f, lambda i: i.update(weight_map={})), (INDEX, "is missing")),
}


@pytest.mark.parametrize("name", SHARDED_REFUSED)
def test_what_is_wrong_with_shards_is_named(name: str, sharded: Path) -> None:
    damage, words = SHARDED_REFUSED[name]
    Checkpoint.open(sharded)
    damage(sharded)
    with pytest.raises(ValueError) as raised:
        Checkpoint.open(sharded)
    for word in words:
        assert word in str(raised.value)


def test_a_path_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        Checkpoint.open(tmp_path / "absent")


def test_digest_stays_when_files_are_touched_or_moved(tmp_path: Path) -> None:
    folder = write(tmp_path / "here", tiny(), shards=2)
    digest = Checkpoint.open(folder).digest
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    assert Checkpoint.open(folder.rename(tmp_path / "there")).digest == digest


@pytest.mark.parametrize("size", ["small", "large"])
def test_digest_tells_any_changed_tensor(size: str, tmp_path: Path) -> None:
    """Also where a file is much larger than what is read of it."""
    content = tiny(vocab_size=1000, hidden_size=128, intermediate_size=200) if size == "large" else tiny()
    weights = random_weights(content)
    digests = {Checkpoint.open(write(tmp_path, content, weights)).digest}
    for name in weights:
        changed = weights | {name: weights[name] * 1.01}
        digests.add(Checkpoint.open(write(tmp_path, content, changed)).digest)
    assert len(digests) == 1 + len(weights)


def test_digest_tells_another_configuration(single: Path) -> None:
    digest = Checkpoint.open(single).digest
    edit_config(single, rope_theta=20000.0)
    assert Checkpoint.open(single).digest != digest
