"""Matrices of AWQ and GPTQ, unpacked: exactly what their integers, zeros and scales stand for."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Tensors
from tests.packed_checkpoints import Way, packable, write_packed

WAYS = {
    "awq 128": Way("awq", 128),
    "awq 64": Way("awq", 64),
    "awq 32": Way("awq", 32),
    "awq, one group": Way("awq", 0),
    "gptq 128": Way("gptq", 128),
    "gptq 64, v2": Way("gptq", 64, v2=True),
    "gptq 32, symmetric": Way("gptq", 32, sym=True),
    "gptq 128, symmetric, v2": Way("gptq", 128, sym=True, v2=True),
    "gptq 64, desc_act": Way("gptq", 64, order=True),
    "gptq, one group": Way("gptq", 0, sym=True),
}
W1 = "model.layers.1.block_sparse_moe.experts.3.w1"
Q = "model.layers.0.self_attn.q_proj"


def of(folder: Path, dtype: torch.dtype = torch.float32) -> Tensors:
    checkpoint = Checkpoint.open(folder)
    return Tensors(checkpoint, checkpoint.tensors, dtype)


@pytest.mark.parametrize("name", WAYS)
def test_every_tensor_is_what_its_integers_stand_for(name: str, tmp_path: Path) -> None:
    expected = write_packed(tmp_path, WAYS[name], shards=1 + 2 * WAYS[name].sym)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = of(tmp_path, dtype)
        assert found.keys() == expected.keys()
        for tensor, numbers in expected.items():
            assert torch.equal(found[tensor], numbers.to(dtype)), tensor


@pytest.mark.parametrize("name", WAYS)
def test_integers_stay_what_they_are(name: str, tmp_path: Path) -> None:
    way = WAYS[name]
    expected = write_packed(tmp_path, way)[f"{W1}.weight"]
    grouped = of(tmp_path).grouped(f"{W1}.weight")
    assert grouped.integer_ED.dtype == torch.uint8 and grouped.integer_ED.max() == 15
    assert grouped.scale_EG.shape == (256, 128 // (way.group or 128))
    assert (grouped.order_D is not None) == way.order
    assert torch.equal(grouped.dense(torch.float32), expected)
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(grouped.scale_EG, stored[f"{W1}.scales"].t().float())


def test_a_zero_of_none_is_read_beside_others(tmp_path: Path) -> None:
    """GPTQ stores a zero minus 1: below 0 it borrows from the next of the eight."""
    write_packed(tmp_path, Way("gptq", 128))
    tensors = load_file(tmp_path / "model.safetensors")
    zeros = torch.tensor([0, 7, 0, 0, 15, 1, 0, 3])
    total = sum(int(zero) << 4 * place for place, zero in enumerate(zeros)) - 0x11111111
    tensors[f"{W1}.qzeros"][0, 0] = (total + 2**31) % 2**32 - 2**31
    save_file(tensors, tmp_path / "model.safetensors")
    grouped = of(tmp_path).grouped(f"{W1}.weight")
    assert torch.equal(grouped.middle_EG[:8, 0], grouped.scale_EG[:8, 0] * (8 - zeros))


def test_progress_and_sizes_are_of_all_that_is_stored(tmp_path: Path) -> None:
    write_packed(tmp_path, Way("gptq", 64, order=True), shards=2)
    checkpoint = Checkpoint.open(tmp_path)
    files = {name: tensor for file in tmp_path.glob("*.safetensors") for name, tensor in load_file(file).items()}
    own, told = checkpoint.expert_names(3), list[int]()
    tensors = Tensors(checkpoint, own, torch.bfloat16, progress=told.append)
    dict(tensors)
    assert len(own) == 6 and sum(told) == checkpoint.nbytes(own)
    assert sum(told) == sum(tensor.nbytes for name, tensor in files.items() if ".experts.3." in name)
    told.clear()
    for name in own:
        tensors.grouped(name)
    assert sum(told) == checkpoint.nbytes(own)
    assert checkpoint.nbytes(list(checkpoint.tensors)) == sum(tensor.nbytes for tensor in files.values())
    numbers = sum(torch.tensor(entry.shape).prod().item() for entry in checkpoint.tensors.values())
    assert checkpoint.held_bytes("bfloat16") == 2 * numbers


def test_matrices_that_are_not_packed_are_read_as_they_are(tmp_path: Path) -> None:
    """Whatever `modules_to_not_convert` says: the files know."""
    expected = write_packed(tmp_path, Way("awq", 64))
    tensors = load_file(tmp_path / "model.safetensors")
    for part in ("qweight", "qzeros", "scales"):
        del tensors[f"{Q}.{part}"], tensors[f"{W1}.{part}"]
    plain = {f"{stem}.weight": expected[f"{stem}.weight"].half() for stem in (Q, W1)}
    save_file(tensors | plain, tmp_path / "model.safetensors")
    found = of(tmp_path, torch.float16)
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())
    near = found.grouped(f"{W1}.weight").dense(torch.float32)
    assert 0 < (near - expected[f"{W1}.weight"]).abs().max() < 0.1


def test_the_dtype_is_that_of_the_scales_where_none_is_named(tmp_path: Path) -> None:
    write_packed(tmp_path, Way("awq", 128))
    content = json.loads((tmp_path / "config.json").read_text())
    del content["torch_dtype"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert Checkpoint.open(tmp_path).config.dtype == "float16"


@pytest.mark.parametrize("part", ["qweight", "qzeros", "scales", "g_idx"])
def test_digest_tells_any_changed_part(part: str, tmp_path: Path) -> None:
    write_packed(tmp_path, Way("gptq", 128))
    digest = Checkpoint.open(tmp_path).digest
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[f"{W1}.{part}"] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path).digest != digest


def change(part: str, tensor: torch.Tensor | None) -> Callable[[dict[str, torch.Tensor]], None]:
    def apply(tensors: dict[str, torch.Tensor]) -> None:
        tensors.pop(f"{W1}.{part}", None)
        if tensor is not None:
            tensors[f"{W1}.{part}"] = tensor

    return apply


ones = torch.ones
DAMAGED = {
    "no qzeros": (change("qzeros", None), f"model.safetensors: tensor {W1}.qzeros is missing"),
    "no g_idx": (change("g_idx", None), f"{W1}.g_idx is missing"),
    "another group": (change("scales", ones(4, 256).half()), "[4, 256], config.json asks for [1, 256]"),
    "8 bits": (change("qweight", ones(32, 256, dtype=torch.int32)), "[32, 256], config.json asks for [16, 256]"),
    "packed in 16 bits": (change("qweight", ones(16, 256, dtype=torch.int16)), "stored as I16; only I32 can be served"),
    "scales of integers": (change("scales", ones(1, 256, dtype=torch.int32)), "only F32, BF16 and F16 can be served"),
    "packed and not": (change("weight", ones(256, 128)), f"unexpected tensor {W1}."),
    "bias of another size": (change("bias", ones(8)), "[8], config.json asks for [256]"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_parts_are_named(name: str, tmp_path: Path) -> None:
    damage, says = DAMAGED[name]
    write_packed(tmp_path, Way("gptq", 128))
    tensors = load_file(tmp_path / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=re.escape(says)):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("part", "tensor", "says"),
    [
        ("bias", ones(256).half(), "its bias is not 0"),
        ("g_idx", torch.arange(128).int() // 32, "its g_idx does not name every group"),
        ("g_idx", torch.cat((ones(63), torch.zeros(65))).int(), "its g_idx does not name every group"),
    ],
)
def test_contradictions_are_named_when_they_are_read(
    part: str, tensor: torch.Tensor, says: str, tmp_path: Path
) -> None:
    write_packed(tmp_path, Way("gptq", 64))
    tensors = load_file(tmp_path / "model.safetensors") | {f"{W1}.{part}": tensor}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=rf"^model\.safetensors: {re.escape(W1)}\.weight cannot be unpacked: {says}"):
        of(tmp_path)[f"{W1}.weight"]


def test_a_bias_of_zeros_is_passed_over(tmp_path: Path) -> None:
    expected = write_packed(tmp_path, Way("gptq", 128))
    tensors = load_file(tmp_path / "model.safetensors") | {f"{Q}.bias": torch.zeros(128).half()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(of(tmp_path)[f"{Q}.weight"], expected[f"{Q}.weight"])


def test_sizes_without_whole_groups_are_named(tmp_path: Path) -> None:
    write_packed(tmp_path, Way("awq", 64), packable())
    content = json.loads((tmp_path / "config.json").read_text())
    content["quantization_config"]["group_size"] = 96
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config\.json: quantization_config\.group_size does not suit model\."):
        Checkpoint.open(tmp_path)


def test_packed_tensors_without_settings_say_where_these_belong(tmp_path: Path) -> None:
    """Old folders have them in a file of their own."""
    write_packed(tmp_path, Way("awq", 64))
    content = json.loads((tmp_path / "config.json").read_text())
    del content["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"qweight is packed, but config\.json has no quantization_config: put"):
        Checkpoint.open(tmp_path)
