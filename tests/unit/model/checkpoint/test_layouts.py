"""Every layout in which a Mixtral is found, against transformers: the same logits, the same greedy tokens."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint.folder import Checkpoint
from model.checkpoint.mirror import spans_of
from model.checkpoint.weights import Tensors
from tests.checkpoints import Driver, Request, load_head, random_weights, tiny, write
from tests.logits import chunked_logits, load_transformers
from tests.mirrors import empty, fill

CONTENT = tiny(num_local_experts=4, vocab_size=131)
PROMPT, COUNT = [5, 100, 2, 31], 24
PARAMS = {
    "dim": 32,
    "n_layers": 2,
    "head_dim": 8,
    "hidden_dim": 24,
    "n_heads": 4,
    "n_kv_heads": 2,
    "norm_eps": 1e-05,
    "vocab_size": 131,
    "rope_theta": 10000.0,
    "moe": {"num_experts_per_tok": 2, "num_experts": 4},
}
# As transformers 4.57 writes it, for the sizes of CONTENT
CONFIG_4 = {
    **{"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2},
    **{"head_dim": 8, "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 24},
    **{"max_position_embeddings": 256, "model_type": "mixtral", "num_attention_heads": 4, "num_experts_per_tok": 2},
    **{"num_hidden_layers": 2, "num_key_value_heads": 2, "num_local_experts": 4, "output_router_logits": False},
    **{"rms_norm_eps": 1e-05, "rope_theta": 10000.0, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0},
    **{"sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "float32", "use_cache": True},
    **{"transformers_version": "4.57.6", "vocab_size": 131},
}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Under the names of HF's layout."""
    return random_weights(CONTENT)


@pytest.fixture(scope="module")
def hf(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    return load_transformers(write(tmp_path_factory.mktemp("hf"), CONTENT, weights))


@pytest.fixture(scope="module")
def greedy(hf: Any) -> list[int]:
    with torch.inference_mode():
        ids = hf.generate(torch.tensor([PROMPT]), max_new_tokens=COUNT, do_sample=False)[0].tolist()
    return list(ids[len(PROMPT) :])


def mistral(weights: Mapping[str, torch.Tensor], stacked: bool) -> dict[str, torch.Tensor]:
    """HF's tensors in Mistral's own layout; `stacked` is that of the first release."""
    names = {"input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm", "gate": "gate"}
    outer = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
    moe = "block_sparse_moe" if stacked else "feed_forward"
    found = {f"{theirs}.weight": weights[f"{ours}.weight"] for ours, theirs in outer.items()}
    for layer in range(2):
        ours, theirs = f"model.layers.{layer}", f"layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{theirs}.{names[norm]}.weight"] = weights[f"{ours}.{norm}.weight"]
        found[f"{theirs}.{moe}.gate.weight"] = weights[f"{ours}.block_sparse_moe.gate.weight"]
        for kind in "qkvo":
            matrix = weights[f"{ours}.self_attn.{kind}_proj.weight"]
            found[f"{theirs}.attention.w{kind}.weight"] = in_pairs(matrix) if kind in "qk" else matrix
        for kind in ("w1", "w2", "w3"):
            own = [weights[f"{ours}.block_sparse_moe.experts.{expert}.{kind}.weight"] for expert in range(4)]
            if stacked:
                found[f"{theirs}.{moe}.{kind}"] = torch.cat([matrix.t() if kind == "w2" else matrix for matrix in own])
            else:
                found |= {f"{theirs}.{moe}.experts.{e}.{kind}.weight": matrix for e, matrix in enumerate(own)}
    return {name: tensor.contiguous() for name, tensor in found.items()}


def in_pairs(matrix: torch.Tensor) -> torch.Tensor:
    """Rows i and i + 4 of each head of 8, which a rotation turns together, one behind the other."""
    order = [row for i in range(4) for row in (i, i + 4)]
    return torch.cat([head[order] for head in matrix.split(8)])


def write_mistral(folder: Path, weights: Mapping[str, torch.Tensor], stacked: bool, files: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = mistral(weights, stacked)
    (folder / "params.json").write_text(json.dumps(PARAMS))
    for number in range(files):
        name = f"consolidated-{number + 1:05}-of-{files:05}.safetensors" if files > 1 else "consolidated.safetensors"
        save_file({n: t for i, (n, t) in enumerate(tensors.items()) if i % files == number}, folder / name)
    return folder


def by_hand(folder: Path, weights: Mapping[str, torch.Tensor], hf: Any) -> None:
    write(folder, CONFIG_4, weights, shards=2)


LAYOUTS: dict[str, Callable[[Path, Mapping[str, torch.Tensor], Any], object]] = {
    "transformers 5": lambda folder, weights, hf: hf.save_pretrained(folder),
    "transformers 5, shards": lambda folder, weights, hf: hf.save_pretrained(folder, max_shard_size="40KB"),
    "transformers 5, fused": lambda folder, weights, hf: hf.save_pretrained(folder, save_original_format=False),
    "fused, shards": lambda f, weights, hf: hf.save_pretrained(f, save_original_format=False, max_shard_size="40KB"),
    "transformers 4": by_hand,
    "Mistral's": lambda folder, weights, hf: write_mistral(folder, weights, stacked=False),
    "Mistral's, files": lambda folder, weights, hf: write_mistral(folder, weights, stacked=False, files=3),
    "Mistral's first": lambda folder, weights, hf: write_mistral(folder, weights, stacked=True),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_the_same_model(
    name: str, weights: dict[str, torch.Tensor], hf: Any, greedy: list[int], tmp_path: Path
) -> None:
    LAYOUTS[name](tmp_path, weights, hf)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.config.dtype == "float32" and checkpoint.config.rope_theta == 10000.0
    found = Tensors(checkpoint, checkpoint.tensors, torch.float32)
    assert found.keys() == weights.keys()
    for tensor, expected in weights.items():
        assert torch.equal(found[tensor], expected) and found[tensor].is_contiguous(), tensor
    assert Driver(load_head(tmp_path)).run([Request(PROMPT, COUNT)]) == [greedy]
    with torch.inference_mode():
        logits = hf(torch.tensor([PROMPT + greedy])).logits[0]
    assert (chunked_logits(tmp_path, [PROMPT + greedy], [(9, 4)])[0] - logits).abs().max() <= 1e-4


@pytest.mark.parametrize("name", LAYOUTS)
def test_of_every_layout_a_part_can_be_brought(
    name: str, weights: dict[str, torch.Tensor], hf: Any, tmp_path: Path
) -> None:
    """Twice of the experts' bytes would be a tensor of all of them, brought whole."""
    LAYOUTS[name](tmp_path / "original", weights, hf)
    original = Checkpoint.open(tmp_path / "original")
    part = empty(original, tmp_path / "part")
    names = part.expert_names(1)
    fill(original, part, names, 1)
    found = Tensors(part, names, torch.float32)
    assert all(torch.equal(found[tensor], weights[tensor]) for tensor in names)
    spans = spans_of(part.tensors[tensor] for tensor in names)
    assert sum(span.end - span.begin for span in spans) < 2 * part.nbytes(names)


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_process_accounts_for_its_own_part_of_a_tensor(
    name: str, weights: dict[str, torch.Tensor], hf: Any, tmp_path: Path
) -> None:
    LAYOUTS[name](tmp_path, weights, hf)
    checkpoint, told = Checkpoint.open(tmp_path), list[int]()
    own = checkpoint.expert_names(2)
    dict(Tensors(checkpoint, own, torch.float32, progress=told.append))
    assert len(own) == 6 and sum(told) == checkpoint.nbytes(own) == 6 * 24 * 32 * 4
    stored = sum(tensor.nbytes for file in tmp_path.glob("*.safetensors") for tensor in load_file(file).values())
    assert checkpoint.nbytes(list(checkpoint.tensors)) == stored == checkpoint.held_bytes("float32")


def test_digest_tells_a_change_of_any_expert_in_a_fused_tensor(hf: Any, tmp_path: Path) -> None:
    hf.save_pretrained(tmp_path, save_original_format=False)
    tensors = load_file(tmp_path / "model.safetensors")
    digests = {Checkpoint.open(tmp_path).digest}
    for name in ("gate_up_proj", "down_proj"):
        for expert in range(4):
            changed = {n: t.clone() for n, t in tensors.items()}
            changed[f"model.layers.1.mlp.experts.{name}"][expert] *= 1.01
            save_file(changed, tmp_path / "model.safetensors")
            digests.add(Checkpoint.open(tmp_path).digest)
    assert len(digests) == 1 + 2 * 4


FAULTS: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], object], str]] = {
    "fused, one missing": (
        "transformers 5, fused",
        lambda t: t.pop("model.layers.1.mlp.experts.down_proj"),
        "model.safetensors: tensor model.layers.1.mlp.experts.down_proj is missing; the checkpoint does not match",
    ),
    "fused, another number of experts": (
        "transformers 5, fused",
        lambda t: t.update({"model.layers.0.mlp.experts.gate_up_proj": torch.ones(3, 48, 32)}),
        "tensor model.layers.0.mlp.experts.gate_up_proj has shape [3, 48, 32], config.json asks for [4, 48, 32]",
    ),
    "fused, and not": (
        "transformers 5, fused",
        lambda t: t.update({"model.layers.0.block_sparse_moe.experts.0.w1.weight": torch.ones(24, 32)}),
        "unexpected tensor model.layers.0.block_sparse_moe.experts.0.w1.weight; config.json has no place for it",
    ),
    "Mistral's, one missing": (
        "Mistral's",
        lambda t: t.pop("layers.1.attention.wq.weight"),
        "consolidated*.safetensors: tensor layers.1.attention.wq.weight is missing; the checkpoint does not match its",
    ),
    "Mistral's, stacked, another shape": (
        "Mistral's first",
        lambda t: t.update({"layers.0.block_sparse_moe.w2": torch.ones(32, 96)}),
        "tensor layers.0.block_sparse_moe.w2 has shape [32, 96], params.json asks for [96, 32]",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named_in_the_words_of_the_layout(
    name: str, weights: dict[str, torch.Tensor], hf: Any, tmp_path: Path
) -> None:
    layout, damage, says = FAULTS[name]
    LAYOUTS[layout](tmp_path, weights, hf)
    (file,) = tmp_path.glob("*.safetensors")
    tensors = load_file(file)
    damage(tensors)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=re.escape(says)):
        Checkpoint.open(tmp_path)


def test_files_of_pickles_are_refused_with_a_command_that_makes_them_readable(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    write_mistral(tmp_path, weights, stacked=True)
    tensors = list(load_file(tmp_path / "consolidated.safetensors").items())
    (tmp_path / "consolidated.safetensors").unlink()
    for number in range(2):
        torch.save(dict(tensors[number::2]), tmp_path / f"consolidated.{number:02}.pt")
    with pytest.raises(ValueError, match=r"consolidated\.00\.pt, which is Mistral's own layout") as told:
        Checkpoint.open(tmp_path)
    assert "hf download mistralai/Mixtral-8x7B-v0.1 --exclude 'consolidated*'" in str(told.value)
    python, *arguments = shlex.split(str(told.value).partition("in that folder: ")[2])
    assert python == "python"
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, timeout=120)
    checkpoint = Checkpoint.open(tmp_path)
    found = Tensors(checkpoint, checkpoint.tensors, torch.float32)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_hf_s_files_and_configuration_go_before_mistral_s(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Folders of the hub hold both."""
    write_mistral(tmp_path, {name: tensor * 2 for name, tensor in weights.items()}, stacked=False)
    write(tmp_path, CONTENT, weights)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.config.max_position_embeddings == 256
    assert {entry.file.name for entry in checkpoint.tensors.values()} == {"model.safetensors"}
