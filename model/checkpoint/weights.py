"""Reads tensors of a verified checkpoint by name, so that a process touches only its own."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import safe_open

from model.checkpoint.folder import Checkpoint

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a configuration's name; ValueError lists the names."""
    if name not in TORCH_DTYPES:
        raise ValueError(f"dtype {name!r} is none of {', '.join(TORCH_DTYPES)}")
    return TORCH_DTYPES[name]


def read_tensors(
    checkpoint: Checkpoint,
    names: Iterable[str],
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda nbytes: None,
) -> dict[str, torch.Tensor]:
    """Load tensors by name; `progress` is told the stored bytes of each. Every tensor is copied out of the file's
    mapping, so that no page of its neighbours stays resident.
    """
    by_file: dict[Path, list[str]] = {}
    for name in names:
        by_file.setdefault(checkpoint.tensors[name].file, []).append(name)
    loaded: dict[str, torch.Tensor] = {}
    for file, wanted in by_file.items():
        with safe_open(file, framework="pt") as reader:
            for name in wanted:
                loaded[name] = reader.get_tensor(name).to(device=device, dtype=dtype, copy=True)
                progress(checkpoint.tensors[name].nbytes)
    return loaded
