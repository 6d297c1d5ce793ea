"""A checkpoint folder's settings and headers: no tensor is loaded and torch is not imported."""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.checkpoint.entries import Matching, TensorEntry
from model.checkpoint.files import FLOATS, StoredTensor, read_headers, weight_files, where_listed
from model.checkpoint.packing import Packing
from model.checkpoint.params import load_config, settings_file
from model.config import DTYPES, INT4_GROUPS, MixtralConfig, read_json

_STORED_AS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint; `digest` of its content tells a restarted server whether running actors hold it. `packing`
    is how matrices are stored in 4 bits, None where none are.
    """

    folder: Path
    config: MixtralConfig
    tensors: Mapping[str, TensorEntry]
    digest: str
    packing: Packing | None = None

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Verify a folder; ValueError names the file and key of the first fault."""
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder: give the folder of a checkpoint in HF layout")
        path = settings_file(folder)
        config, named = load_config(folder)
        try:
            packing = Packing.of(named)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        found: dict[str, StoredTensor] = {}
        digest = hashlib.sha256(path.read_bytes())
        for file in weight_files(folder):
            for block in read_headers(file, found):
                digest.update(block)
        tensors = Matching(config, packing, found, path.name, where_listed(folder)).entries()
        if not (named.get("dtype") or named.get("torch_dtype")):
            stored = Counter[str]()  # in bytes: a few tensors (norms, gates) may have a finer dtype than the rest
            for tensor in tensors.values():
                stored[tensor.dtype] += tensor.nbytes
            config = replace(config, dtype=max(DTYPES, key=lambda name: stored[_STORED_AS[name]]))
        packed = any(tensor.packing for tensor in tensors.values())
        return cls(folder, config, tensors, digest.hexdigest(), packing if packed else None)

    @property
    def int4_group(self) -> int | None:
        """Inputs that share a scale when experts are held in 4 bits; None where no 4-bit product takes them."""
        inputs = math.gcd(self.config.hidden_size, self.config.intermediate_size)
        stored = (self.packing and self.packing.group) or inputs
        return next((group for group in INT4_GROUPS if stored % group == 0), None)

    def head_names(self) -> list[str]:
        return [name for name in self.tensors if ".experts." not in name]

    def expert_names(self, expert: int) -> list[str]:
        return [name for name in self.tensors if f".experts.{expert}." in name]

    def nbytes(self, names: list[str]) -> int:
        return sum(self.tensors[name].nbytes for name in names)

    def held_bytes(self, dtype: str, names: Collection[str] | None = None) -> int:
        """Of these tensors in a dtype, unpacked; of all of them without names."""
        chosen = self.tensors if names is None else names
        return sum(math.prod(self.tensors[name].shape) for name in chosen) * dtype_bytes(dtype)


def generation_config(folder: Path) -> dict[str, Any]:
    """generation_config.json, or {} without one; ValueError if it is no JSON. A `top_k` of -1 becomes 0, as both keep
    all.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        return {}
    return content | {"top_k": 0} if content.get("top_k") == -1 else content


def eos_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Ids that end an output, of config.json and generation_config.json together; ValueError if one is no id."""
    eos = generation_config(checkpoint.folder).get("eos_token_id")
    ids = {*checkpoint.config.eos_token_ids, *(eos if isinstance(eos, list) else [] if eos is None else [eos])}
    for token in ids:
        if not isinstance(token, int) or not 0 <= token < checkpoint.config.vocab_size:
            raise ValueError(
                f"{checkpoint.folder}: eos_token_id {token!r} is none of the {checkpoint.config.vocab_size} token ids"
            )
    return tuple(sorted(ids))


def dtype_bytes(dtype: str) -> int:
    return FLOATS[_STORED_AS[dtype]]
