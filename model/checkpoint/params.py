"""Hyper-parameters of a checkpoint, by HF's config.json or by Mistral's own params.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.config import MixtralConfig, read_json

CONFIG, PARAMS = "config.json", "params.json"
_LEAST_CONTEXT = 32768  # tokens that every Mixtral was trained for; 8x7B's file does not say
_KEYS = {  # of params.json: HF's
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "head_dim": "head_dim",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
    "vocab_size": "vocab_size",
    "rope_theta": "rope_theta",
    "sliding_window": "sliding_window",
    "tied_embeddings": "tie_word_embeddings",
    "max_seq_len": "max_position_embeddings",
}
_EXPERTS = {"num_experts": "num_local_experts", "num_experts_per_tok": "num_experts_per_tok"}
_OPTIONAL = ("rope_theta", "sliding_window", "tied_embeddings", "max_seq_len")
_PASSED_OVER = ("max_batch_size", "model_type")  # they do not change the mathematics


def settings_file(folder: Path) -> Path:
    """The file of a checkpoint's hyper-parameters; config.json goes first."""
    own = folder / PARAMS
    return own if own.exists() and not (folder / CONFIG).exists() else folder / CONFIG


def load_config(folder: Path) -> tuple[MixtralConfig, Mapping[str, Any]]:
    """The configuration, and what config.json says beside it; ValueError names file and key of a fault."""
    path = settings_file(folder)
    if path.name == CONFIG:
        return MixtralConfig.load(folder), read_json(path)
    try:
        return MixtralConfig.from_hf(_in_hf_words(read_json(path))), {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _in_hf_words(params: object) -> dict[str, Any]:
    moe = params.get("moe") if isinstance(params, Mapping) else None
    if not isinstance(params, Mapping) or not isinstance(moe, Mapping):
        raise ValueError("it has no moe, an object with num_experts and num_experts_per_tok: this is no Mixtral")
    for given, keys, optional in ((params, _KEYS, (*_OPTIONAL, *_PASSED_OVER, "moe")), (moe, _EXPERTS, ())):
        if missing := next((key for key in keys if key not in given and key not in optional), None):
            raise ValueError(f"{missing} is missing: copy the file again")
        if unknown := next((key for key in given if key not in keys and key not in optional), None):
            raise ValueError(f"{unknown} is not known here, and may change what is computed: use the HF layout")
    named = {_KEYS[key]: value for key, value in params.items() if key in _KEYS and value is not None}
    return {"max_position_embeddings": _LEAST_CONTEXT} | named | {_EXPERTS[key]: moe[key] for key in _EXPERTS}
