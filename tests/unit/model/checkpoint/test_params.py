"""Mistral's own params.json: what it says in HF's words, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint.params import load_config

MIXTRAL_8X7B = {
    "dim": 4096,
    "n_layers": 32,
    "head_dim": 128,
    "hidden_dim": 14336,
    "n_heads": 32,
    "n_kv_heads": 8,
    "norm_eps": 1e-05,
    "vocab_size": 32000,
    "moe": {"num_experts_per_tok": 2, "num_experts": 8},
}


def write(folder: Path, **changes: Any) -> Path:
    content = {key: value for key, value in (MIXTRAL_8X7B | changes).items() if value != "gone"}
    (folder / "params.json").write_text(json.dumps(content))
    return folder


def test_it_is_said_in_the_words_of_hf(tmp_path: Path) -> None:
    config, said = load_config(write(tmp_path))
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (4096, 14336, 32)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (32, 8, 128)
    assert (config.num_local_experts, config.num_experts_per_tok, config.vocab_size) == (8, 2, 32000)
    assert (config.rope_theta, config.max_position_embeddings, config.eos_token_ids) == (1e6, 32768, (2,))
    assert config.sliding_window is None and not config.tie_word_embeddings and said == {}


def test_what_may_stand_there_is_taken(tmp_path: Path) -> None:
    more = {"rope_theta": 5e5, "sliding_window": 64, "tied_embeddings": True, "max_seq_len": 65536, "max_batch_size": 4}
    config, _ = load_config(write(tmp_path, **more))
    assert (config.rope_theta, config.sliding_window, config.max_position_embeddings) == (5e5, 64, 65536)
    assert config.tie_word_embeddings
    assert load_config(write(tmp_path, rope_theta=None))[0].rope_theta == 1e6


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"moe": "gone"}, "it has no moe"),
        ({"moe": {"num_experts": 8}}, "num_experts_per_tok is missing: copy the file again"),
        ({"moe": {"num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1}}, "num_shared_experts is not k"),
        ({"dim": "gone"}, "dim is missing: copy the file again"),
        ({"yarn": {"factor": 4}}, "yarn is not known here, and may change what is computed: use the HF layout"),
        ({"n_heads": 31}, "num_attention_heads (31) must be a multiple of"),
    ],
)
def test_what_cannot_be_served_is_refused_with_file_and_key(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        load_config(write(tmp_path, **changes))
    assert str(raised.value).startswith(f"{tmp_path / 'params.json'}: ")


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_what_is_no_object_is_refused_with_the_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(content)
    with pytest.raises(ValueError, match=r"params\.json"):
        load_config(tmp_path)


def test_without_any_of_them_config_json_is_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_config(tmp_path)
