"""`inspect` describes folders, the good and the damaged."""

import json
from pathlib import Path

import pytest

from cluster.launch.inspection import inspect, run
from cluster.settings.config import Config, load_config
from tests.checkpoints import random_weights, tiny, write
from tests.text_folders import CHATML, END, HERMES, START, text_folder

ADDED = {END: 32000, START: 32001}


def config(folder: Path | str, *settings: str) -> Config:
    return load_config(None, {}, [f"model.path={folder}", *settings])


def folder_of(tmp_path: Path, vocab_size: int = 32002, template: str | None = HERMES) -> Path:
    """A whole checkpoint, as a tune has it."""
    made = tiny(vocab_size=vocab_size)
    write(tmp_path, made, random_weights(made))
    kept = (tmp_path / "config.json").read_bytes()
    text_folder(tmp_path, added=ADDED, template=template, eos_token=END)
    (tmp_path / "config.json").write_bytes(kept)
    return tmp_path


def test_a_tune_is_described(tmp_path: Path) -> None:
    found = inspect(config(folder_of(tmp_path)))
    assert found.refusals == []
    assert (found.family, found.vocabulary, found.vocabulary_size) == ("Mixtral", "tokenizer.model", 32002)
    assert found.added_tokens == [END, START]
    assert 32000 in found.eos_token_ids, "tokenizer_config.json names it, and config.json does not"
    assert (found.chat, found.tools) == ("the checkpoint's template", "called as hermes does")
    assert found.head_bytes + found.experts * found.expert_bytes == 4 * found.parameters, "fp32, all of them"


def test_fewer_bits_are_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    whole, less = inspect(config(folder)), inspect(config(folder, "experts.quantization=int8"))
    assert less.experts_served_as == "int8"
    assert less.expert_bytes < 0.26 * whole.expert_bytes
    assert less.head_bytes == whole.head_bytes


def test_chat_without_tools_and_no_chat(tmp_path: Path) -> None:
    assert inspect(config(folder_of(tmp_path / "a", template=CHATML))).tools.startswith("none: a request that has some")
    assert inspect(config(folder_of(tmp_path / "b", template=None))).chat.startswith("none: has tokens that were added")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("model.safetensors", "the weights are missing"),
        ("tokenizer.model", "tokenizer.model does not exist"),
        ("config.json", "has no config.json"),
    ],
)
def test_what_would_be_refused_is_said_beside_the_rest(damage: str, said: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / damage).unlink()
    found = inspect(config(folder))
    assert any(said in refusal for refusal in found.refusals)
    assert bool(found.vocabulary) is (damage != "tokenizer.model")
    assert bool(found.family) is (damage == "tokenizer.model")


def test_more_tokens_than_the_embedding_has_are_refused(tmp_path: Path) -> None:
    (refusal,) = inspect(config(folder_of(tmp_path, vocab_size=32001))).refusals
    assert "tokenizer.model and added tokens have 32002 pieces, but config.json a vocabulary of 32001" in refusal


def test_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config("demo"), as_json=False) == 0
    assert "8 experts, 2 a token" in capsys.readouterr().out
    assert run(config("demo"), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["experts"] == 8
