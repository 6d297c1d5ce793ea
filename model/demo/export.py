"""Write the checkpoint in the layout of the public Mixtral releases: per-expert names, plain config.json."""

import json
import os
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG: Final[dict[str, Any]] = {
    "architectures": ["MixtralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "dtype": "float32",
    "eos_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
    "model_type": "mixtral",
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "num_local_experts": 8,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.003,
    "router_jitter_noise": 0.0,
    "sliding_window": 128,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 2048,
}
GENERATION: Final[dict[str, Any]] = {"bos_token_id": 1, "eos_token_id": 2}


def classic_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name the tensors of a transformers-5 Mixtral as on disk in Mixtral-8x7B-v0.1.

    In memory the experts of a layer are two fused tensors: gate_up_proj [experts, 2 * intermediate, hidden],
    w1 above w3, and down_proj [experts, hidden, intermediate], which is w2.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        name = name.replace(".mlp.", ".block_sparse_moe.")
        prefix, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            half = value.shape[1] // 2
            for expert, rows in enumerate(value):
                tensors[f"{prefix}.{expert}.w1.weight"] = rows[:half].contiguous().clone()
                tensors[f"{prefix}.{expert}.w3.weight"] = rows[half:].contiguous().clone()
        elif last == "down_proj":
            for expert, rows in enumerate(value):
                tensors[f"{prefix}.{expert}.w2.weight"] = rows.contiguous().clone()
        else:
            tensors[name] = value.contiguous().clone()
    return tensors


def save_checkpoint(model: nn.Module, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors, each by rename.

    Somebody may be serving from the folder, so no reader may ever meet half a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", CONFIG), ("generation_config.json", GENERATION)):
        staging = folder / f".{name}.tmp"
        staging.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(staging, folder / name)
    staging = folder / ".model.safetensors.tmp"
    save_file(dict(sorted(classic_tensors(model).items())), staging, metadata={"format": "pt"})
    staging.chmod(0o644)  # safetensors creates files that only their owner may read
    os.replace(staging, folder / "model.safetensors")
