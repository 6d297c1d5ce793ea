"""The checkpoint `mid`: a Mixtral of 0.79 B parameters with random weights in bf16, for measurements.

    python -m benchmarks.mid FOLDER [--tokenizer FILE]

Its shapes are those of a real model, an eighth as wide as Mixtral 8x7B and a quarter as deep. The vocabulary file is
Mistral's, which the package mistral-common carries.
"""

import argparse
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from model.checkpoint.entries import expected_shapes
from model.config import MixtralConfig

_STD = 0.05  # 0.02, as models begin with, leaves the best two logits of random weights closer than bf16 can tell
CONTENT: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "rope_theta": 1e6,
    "sliding_window": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "bfloat16",
}


def write(folder: Path, tokenizer: Path, content: dict[str, Any] = CONTENT, device: torch.device | str = "cpu") -> Path:
    """Write it, or one of other sizes; `device` makes the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content, indent=2))
    source = torch.Generator(device).manual_seed(0)
    tensors = {}
    for name, shape in expected_shapes(MixtralConfig.from_hf(content)).items():
        around = 1.0 if "norm" in name else 0.0
        numbers = torch.randn(shape, generator=source, device=device) * _STD + around
        tensors[name] = numbers.to(getattr(torch, content["dtype"])).cpu()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    shutil.copy(tokenizer, folder / "tokenizer.model")
    return folder


def mistral_tokenizer() -> Path:
    """Mistral's vocabulary file, 32,000 pieces, of the package mistral-common; ValueError where it is missing."""
    spec = importlib.util.find_spec("mistral_common")
    found = Path(spec.origin).parent / "data" / "tokenizer.model.v1" if spec and spec.origin else None
    if found is None or not found.is_file():
        raise ValueError("no mistral-common with its tokenizer.model.v1 is installed, which `make venv` does")
    return found


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    arguments = parser.parse_args()
    print(write(arguments.folder, arguments.tokenizer or mistral_tokenizer()))


if __name__ == "__main__":
    main()
