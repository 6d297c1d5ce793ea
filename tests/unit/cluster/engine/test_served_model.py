"""What is served: its name, its end-of-sequence ids and default sampling, and what is wrong with a folder."""

import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.engine.served_model import DEMO_FOLDER, ServedModel
from model.batch import SamplingParams
from model.text.tokenizer import Tokenizer


def folder_like_demo(folder: Path, config: dict[str, Any] | None = None, generation: object = None) -> Path:
    """The demo checkpoint with changes to its config.json, and with this generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "tokenizer.model"):
        (folder / name).symlink_to(DEMO_FOLDER / name)
    raw = json.loads((DEMO_FOLDER / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | (config or {})), encoding="utf-8")
    if generation is not None:
        text = generation if isinstance(generation, str) else json.dumps(generation)
        (folder / "generation_config.json").write_text(text, encoding="utf-8")
    return folder


def refusal(path: str) -> str:
    with pytest.raises(ValueError) as caught:
        ServedModel.open(path)
    return str(caught.value)


def test_the_demo_is_named_demo(demo: ServedModel) -> None:
    assert (demo.id, demo.checkpoint.folder) == ("demo", DEMO_FOLDER)
    assert demo.context_length == demo.checkpoint.config.max_position_embeddings == 4096
    assert (demo.eos_ids, demo.default_sampling) == ((2,), SamplingParams())


def test_a_folder_is_named_by_its_own_name_however_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_like_demo(tmp_path / "models" / "tiny-8x1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    given = [str(folder), f"{folder}/", "models/tiny-8x1", "./models/tiny-8x1", "~/models/tiny-8x1"]
    assert {ServedModel.open(path).id for path in given} == {"tiny-8x1"}
    monkeypatch.chdir(folder)
    assert ServedModel.open(".").id == "tiny-8x1"


@pytest.mark.parametrize("path", ["nowhere", "./no/where", "/no/where", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_said_to_be_none(path: str) -> None:
    assert "is no folder" in refusal(path)


class Hub(SimpleNamespace):
    """Stands in for huggingface_hub."""


@pytest.mark.parametrize("twice", [True, False], ids=["in both layouts", "in Mistral's layout alone"])
def test_a_hub_id_is_fetched_and_names_the_model(twice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are there in two layouts come once."""
    snapshot = folder_like_demo(tmp_path / "snapshots" / "0123abcd")
    weights = [file.rename(tmp_path / file.name) for file in snapshot.glob("*.safetensors")]
    asked: list[list[str]] = []

    def download(hub_id: str, allow_patterns: list[str], ignore_patterns: Sequence[str] = ()) -> str:
        assert (hub_id, allow_patterns) == ("org/tiny", ["*.json", "*.jinja", "*.safetensors", "tokenizer.model"])
        asked.append(list(ignore_patterns))
        if twice or not ignore_patterns:
            for file in weights:
                file.rename(snapshot / file.name)
        return str(snapshot)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(snapshot_download=download))
    assert ServedModel.open("org/tiny").id == "org/tiny"
    assert asked == ([["consolidated*"]] if twice else [["consolidated*"], []])


def test_a_hub_that_cannot_be_reached_or_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(hub_id: str, **patterns: list[str]) -> str:
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(snapshot_download=download))
    assert "org/tiny is no folder here, and could not be fetched" in refusal("org/tiny")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'eightwinds[hub]'" in refusal("org/tiny")


def test_without_a_generation_config_sampling_changes_nothing(tmp_path: Path) -> None:
    assert ServedModel.open(str(folder_like_demo(tmp_path / "a"))).default_sampling == SamplingParams()


def test_a_generation_config_gives_the_defaults(tmp_path: Path) -> None:
    generation = {"temperature": 0.7, "top_p": 0.9, "top_k": 50, "min_p": 0.1, "repetition_penalty": 1.1}
    other = {"do_sample": True, "max_length": 20, "bos_token_id": 1, "transformers_version": "4.36"}
    served = ServedModel.open(str(folder_like_demo(tmp_path / "a", generation=generation | other)))
    assert served.default_sampling == SamplingParams(**generation)  # type: ignore[arg-type]
    nothing = folder_like_demo(tmp_path / "b", generation=dict.fromkeys(generation))
    assert ServedModel.open(str(nothing)).default_sampling == SamplingParams()


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [(2, None, (2,)), (2, 7, (2, 7)), ([2, 9], [9, 5], (2, 5, 9)), (None, 7, (7,)), (None, None, ())],
)
def test_every_end_of_sequence_id_counts(
    config: object, generation: object, expected: tuple[int, ...], tmp_path: Path
) -> None:
    folder = folder_like_demo(tmp_path / "a", {"eos_token_id": config}, {"eos_token_id": generation})
    assert ServedModel.open(str(folder)).eos_ids == expected


@pytest.mark.parametrize(
    ("generation", "says"),
    [
        ('{"temperature": ', "generation_config.json is not valid JSON"),
        ({"temperature": 5}, "generation_config.json: temperature is 5, but must be 0 to 2"),
        ({"temperature": "warm"}, "temperature is 'warm', but must be"),
        ({"temperature": True}, "temperature is True, but must be"),
        ({"top_p": 0}, "top_p is 0, but must be above 0"),
        ({"top_k": 2.5}, "top_k is 2.5, but must be"),
        ({"top_k": -2}, "top_k is -2, but must be"),
        ({"min_p": 2}, "min_p is 2, but must be"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0, but must be"),
        ('{"repetition_penalty": Infinity}', "repetition_penalty is inf, but must be"),
        ('{"top_p": NaN}', "top_p is nan, but must be"),
        ({"eos_token_id": 2048}, "eos_token_id 2048 is none of the 2048 token ids"),
        ({"eos_token_id": [2, -1]}, "eos_token_id -1 is none of"),
        ({"eos_token_id": "</s>"}, "eos_token_id '</s>' is none of"),
    ],
)
def test_a_wrong_generation_config_is_refused_at_the_start(generation: object, says: str, tmp_path: Path) -> None:
    """Or every request that leaves the field to the checkpoint would fail."""
    assert says in refusal(str(folder_like_demo(tmp_path / "a", generation=generation)))


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    larger = Tokenizer.load(Path(str(files("mistral_common"))) / "data" / "tokenizer.model.v1")
    monkeypatch.setattr(Tokenizer, "load", lambda path: larger)
    said = refusal(str(folder_like_demo(tmp_path / "a")))
    assert "tokenizer.model and added tokens have 32000 pieces, but config.json a vocabulary of 2048" in said


def test_a_top_k_of_minus_one_keeps_all_as_elsewhere(tmp_path: Path) -> None:
    served = ServedModel.open(str(folder_like_demo(tmp_path / "a", generation={"top_k": -1})))
    assert served.default_sampling.top_k == 0
