"""Hyper-parameters of a Mixtral checkpoint, under the names and defaults of HF's `MixtralConfig`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")
INT4_GROUPS = (128, 64, 32)  # inputs that may share a scale in a 4-bit product; the first that fits is taken


@dataclass(frozen=True)
class MixtralConfig:
    """The settings that serving needs of a checkpoint's `config.json` (transformers `MixtralConfig`)."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 128
    max_position_embeddings: int = 4096 * 32
    rms_norm_eps: float = 1e-5
    eos_token_id: int | tuple[int, ...] | None = 2
    tie_word_embeddings: bool = False
    rope_theta: float = 1e6
    sliding_window: int | None = None
    num_experts_per_tok: int = 2
    num_local_experts: int = 8
    dtype: str = "float32"

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that end a text; empty where the checkpoint names none."""
        eos = self.eos_token_id
        return eos if isinstance(eos, tuple) else () if eos is None else (eos,)

    def kv_token_bytes(self, dtype_bytes: int) -> int:
        """Bytes of one token in the KV cache: keys and values of all layers."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * dtype_bytes

    @classmethod
    def load(cls, folder: Path) -> "MixtralConfig":
        """Read `config.json` of a checkpoint folder; ValueError names the setting that cannot be served, and why."""
        path = folder / "config.json"
        try:
            raw = read_json(path)
        except FileNotFoundError:
            raise ValueError(f"{folder} has no config.json: give the folder of a checkpoint in HF layout") from None
        if not isinstance(raw, dict):
            raise ValueError(f"{path} must hold a JSON object")
        try:
            return cls.from_hf(raw)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "MixtralConfig":
        """Build from the content of an HF `config.json`; ValueError for a setting that this server cannot compute."""
        _refuse_unservable(raw)
        values: dict[str, Any] = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}
        theta = (raw.get("rope_parameters") or {}).get("rope_theta", raw.get("rope_theta"))
        values["rope_theta"] = cls.rope_theta if theta is None else theta
        values["dtype"] = str(raw.get("dtype") or raw.get("torch_dtype") or "float32").removeprefix("torch.")
        hidden = values.get("hidden_size", cls.hidden_size)
        heads = values.get("num_attention_heads", cls.num_attention_heads)
        if values.get("num_key_value_heads") is None and "num_key_value_heads" in values:
            values["num_key_value_heads"] = heads
        if values.get("head_dim") is None and _is_count(hidden) and _is_count(heads):
            values["head_dim"] = hidden // heads
        if isinstance(values.get("eos_token_id"), list):
            values["eos_token_id"] = tuple(values["eos_token_id"])
        return cls(**values)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and not _is_count(value):
                raise ValueError(f"{field.name} is {value!r}, but must be a whole number of at least 1")
            if field.type is float and (type(value) not in (int, float) or not 0 < value < math.inf):
                raise ValueError(f"{field.name} is {value!r}, but must be a number above 0")
        if self.sliding_window is not None and not _is_count(self.sliding_window):
            raise ValueError(f"sliding_window is {self.sliding_window!r}, but must be null or at least 1")
        if not isinstance(self.tie_word_embeddings, bool):
            raise ValueError(f"tie_word_embeddings is {self.tie_word_embeddings!r}, but must be true or false")
        if not all(isinstance(i, int) and i >= 0 for i in self.eos_token_ids):
            raise ValueError(f"eos_token_id is {self.eos_token_id!r}, but must be an id, a list of ids or null")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}, but rotary embeddings need an even one")
        if self.num_experts_per_tok > self.num_local_experts:
            raise ValueError(
                f"num_experts_per_tok ({self.num_experts_per_tok}) exceeds num_local_experts ({self.num_local_experts})"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} cannot be served; convert the checkpoint to one of {DTYPES}")


def read_json(file: Path) -> Any:
    """The content of one of a checkpoint's files; ValueError if it is no JSON."""
    refuse_pointer(file)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}): copy it again from its source") from None


def refuse_pointer(file: Path) -> None:
    """ValueError if Git has left a pointer in the file's place, because its contents were not fetched."""
    with file.open("rb") as stream:
        if stream.read(24).startswith(b"version https://git-lfs"):
            raise ValueError(
                f"{file} is a Git LFS pointer, not the file itself: run `git lfs install`, then `git lfs pull` there"
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _refuse_unservable(raw: Mapping[str, Any]) -> None:
    kind = raw.get("model_type", "mixtral")
    if kind != "mixtral":
        raise ValueError(f"model_type is {kind!r}, but only 'mixtral' checkpoints can be served")
    activation = raw.get("hidden_act", "silu")
    if activation != "silu":
        raise ValueError(f"hidden_act is {activation!r}, but only 'silu' can be served")
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(raw.get(key) or {}, Mapping):
            raise ValueError(f"{key} is {raw[key]!r}, but must be an object or null")
        for name in ("rope_type", "type"):
            rope_type = (raw.get(key) or {}).get(name, "default")
            if rope_type != "default":
                raise ValueError(f"RoPE scaling of type {rope_type!r} cannot be served; only unscaled RoPE can")
