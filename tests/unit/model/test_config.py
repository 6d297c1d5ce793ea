"""`MixtralConfig` against transformers', and what is refused with which words."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import MixtralConfig as HfConfig

from model.config import MixtralConfig
from tests.checkpoints import tiny

DERIVED = {"rope_theta", "dtype"}  # HF keeps them elsewhere or sets them when weights are loaded


def of_hf(config: Any, name: str) -> Any:
    """What transformers uses for one of our fields."""
    match name:
        case "head_dim":
            return config.head_dim or config.hidden_size // config.num_attention_heads
        case "rope_theta":
            return config.rope_parameters["rope_theta"]
        case "eos_token_id" if isinstance(config.eos_token_id, list):
            return tuple(config.eos_token_id)
        case "dtype":
            return "float32" if config.dtype is None else str(config.dtype).removeprefix("torch.")
    return getattr(config, name)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(MixtralConfig)])
def test_default_is_that_of_transformers(field: str) -> None:
    assert getattr(MixtralConfig(), field) == of_hf(HfConfig(), field)
    assert getattr(MixtralConfig.from_hf({}), field) == of_hf(HfConfig(), field)


FILES: dict[str, dict[str, Any]] = {
    "Mixtral 8x7B": {
        "architectures": ["MixtralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mixtral",
        "num_attention_heads": 32,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "output_router_logits": False,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.36.0.dev0",
        "use_cache": True,
        "vocab_size": 32000,
    },
    "tiny": tiny(),
    "other numbers": {
        "vocab_size": 50,
        "hidden_size": 48,
        "intermediate_size": 20,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 10,
        "max_position_embeddings": 77,
        "initializer_range": 0.5,
        "rms_norm_eps": 1e-6,
        "use_cache": False,
        "pad_token_id": 4,
        "bos_token_id": 5,
        "eos_token_id": [6, 7],
        "tie_word_embeddings": True,
        "sliding_window": 9,
        "attention_dropout": 0.25,
        "num_experts_per_tok": 3,
        "num_local_experts": 5,
        "output_router_logits": True,
        "router_aux_loss_coef": 0.5,
        "router_jitter_noise": 0.125,
        "dtype": "float16",
    },
    "head_dim null": tiny() | {"head_dim": None},
    "head_dim absent": {key: value for key, value in tiny(hidden_size=48).items() if key != "head_dim"},
    "no special ids": tiny() | {"bos_token_id": None, "eos_token_id": None},
    "theta in rope_parameters": tiny(rope_theta=None, rope_parameters={"rope_theta": 123.0, "rope_type": "default"}),
    "theta in both": tiny(rope_theta=5.0, rope_parameters={"rope_theta": 123.0, "rope_type": "default"}),
    "rope_parameters without theta": tiny(rope_theta=5.0, rope_parameters={"rope_type": "default"}),
    "rope_parameters null": tiny(rope_theta=5.0) | {"rope_parameters": None},
    "rope_scaling null": tiny(rope_theta=5.0) | {"rope_scaling": None},
}


@pytest.mark.parametrize("name", FILES)
def test_file_is_read_as_transformers_reads_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(FILES[name]))
    ours, theirs = MixtralConfig.load(tmp_path), HfConfig.from_pretrained(tmp_path)
    for field in dataclasses.fields(MixtralConfig):
        assert getattr(ours, field.name) == of_hf(theirs, field.name), field.name


def test_file_that_transformers_wrote_is_read_back(tmp_path: Path) -> None:
    theirs = HfConfig.from_dict(FILES["other numbers"])
    theirs.save_pretrained(tmp_path)
    ours = MixtralConfig.load(tmp_path)
    for field in dataclasses.fields(MixtralConfig):
        assert getattr(ours, field.name) == of_hf(theirs, field.name), field.name


@pytest.mark.parametrize(("eos", "ids"), [(None, ()), (2, (2,)), ([2, 5], (2, 5)), ([], ())])
def test_ids_that_end_a_text_are_always_a_tuple(eos: Any, ids: tuple[int, ...]) -> None:
    assert MixtralConfig.from_hf(tiny() | {"eos_token_id": eos}).eos_token_ids == ids


@pytest.mark.parametrize("written", ["bfloat16", "torch.bfloat16"])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype_is_read_under_both_names(key: str, written: str) -> None:
    assert MixtralConfig.from_hf({key: written}).dtype == "bfloat16"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"model_type": "llama"}, "model_type is 'llama'"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    "no activation": ({"hidden_act": None}, "hidden_act is None"),
    "rope scaling, new name": ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "RoPE scaling of type 'yarn'"),
    "rope scaling, old name": ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE scaling of type 'linear'"),
    "rope parameters, new name": ({"rope_parameters": {"rope_type": "llama3"}}, "RoPE scaling of type 'llama3'"),
    "rope parameters, old name": ({"rope_parameters": {"type": "dynamic"}}, "RoPE scaling of type 'dynamic'"),
    "rope parameters a list": ({"rope_parameters": [1]}, "rope_parameters is [1], but must be an object"),
    "rope scaling a word": ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn', but must be an object"),
    "another dtype": ({"dtype": "float64"}, "dtype 'float64' cannot be served; convert"),
    "fp8": ({"dtype": "float8_e4m3fn"}, "dtype 'float8_e4m3fn' cannot be served"),
    "KV heads that do not divide": ({"num_key_value_heads": 3}, "num_attention_heads (4) must be a multiple of"),
    "an odd head_dim": ({"head_dim": 7}, "head_dim is 7"),
    "an odd head_dim, derived": ({"head_dim": None, "hidden_size": 28}, "head_dim is 7"),
    "more experts a token than there are": ({"num_experts_per_tok": 9}, "num_experts_per_tok (9) exceeds"),
    "no window at all": ({"sliding_window": 0}, "sliding_window is 0"),
    "a window that is a word": ({"sliding_window": "128"}, "sliding_window is '128'"),
    "a window that is a truth": ({"sliding_window": True}, "sliding_window is True"),
    "theta zero": ({"rope_theta": 0}, "rope_theta is 0"),
    "theta a word": ({"rope_theta": "1e6"}, "rope_theta is '1e6'"),
    "theta not a number": ({"rope_parameters": {"rope_theta": math.nan}}, "rope_theta is nan"),
    "epsilon negative": ({"rms_norm_eps": -1e-5}, "rms_norm_eps is -1e-05"),
    "epsilon a word": ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'"),
    "epsilon infinite": ({"rms_norm_eps": math.inf}, "rms_norm_eps is inf"),
    "tied a word": ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
    "end of text a word": ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
    "end of text with a word": ({"eos_token_id": [2, "</s>"]}, "eos_token_id is (2, '</s>')"),
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "num_experts_per_tok",
    "num_local_experts",
)
NO_SIZES: tuple[Any, ...] = (0, -8, 8.0, "8", True, [])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_with_file_and_key(name: str, tmp_path: Path) -> None:
    changes, words = REFUSED[name]
    (tmp_path / "config.json").write_text(json.dumps(tiny() | changes))
    with pytest.raises(ValueError) as raised:
        MixtralConfig.load(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert words in str(raised.value)


@pytest.mark.parametrize("value", NO_SIZES)
@pytest.mark.parametrize("name", SIZES)
def test_size_must_be_a_whole_number(name: str, value: Any) -> None:
    with pytest.raises(ValueError) as raised:
        MixtralConfig.from_hf(tiny() | {name: value})
    assert f"{name} is {value!r}, but must be a whole number of at least 1" in str(raised.value)


def test_null_for_the_kv_heads_means_all_heads() -> None:
    assert MixtralConfig.from_hf(tiny() | {"num_key_value_heads": None}).num_key_value_heads == 4


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads"])
def test_word_for_a_size_is_refused_where_head_dim_follows_from_it(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '64'"):
        MixtralConfig.from_hf({name: "64"})


UNREADABLE = {
    "nothing": (None, "has no config.json: give the folder"),
    "no JSON": (b"{'hidden_size': 8}", "is not valid JSON"),
    "an end too early": (b'{"hidden_size": 8', "is not valid JSON"),
    "no text": (b"\xff\xfe\x00", "is not valid JSON"),
    "a list": (b"[]", "must hold a JSON object"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_file_is_named(name: str, tmp_path: Path) -> None:
    content, words = UNREADABLE[name]
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError) as raised:
        MixtralConfig.load(tmp_path)
    assert str(tmp_path) in str(raised.value) and words in str(raised.value)
