"""Configuration: where values come from, which one wins, and what is said about wrong ones."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from cluster.settings.config import Config, known_keys, load_config
from tests.source_tree import ROOT


def write(folder: Path, text: str) -> Path:
    file = folder / "eightwinds.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def value(config: Config, key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


def message(*settings: str, file: Path | None = None, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        load_config(file, environment or {}, settings)
    return str(caught.value)


def test_without_anything_the_defaults_hold() -> None:
    assert load_config(None, {}) == Config()
    assert Config().gateway.listen == "127.0.0.1:50051"
    assert Config().gateway.http == "127.0.0.1:8000"
    assert (Config().model.path, Config().cluster.namespace) == ("demo", "eightwinds")
    assert (Config().runtime, Config().transport) == ("ray", "channel")


def test_settings_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "kv: {page_size: 1, memory_bytes: 1000}\nmodel: {path: from-file}\nruntime: ray\n")
    environment = {
        "EIGHTWINDS_KV__PAGE_SIZE": "2",
        "EIGHTWINDS_MODEL__PATH": "from-env",
        "EIGHTWINDS_RUNTIME": "in_process",
    }
    config = load_config(file, environment, ["kv.page_size=3"])
    assert (config.kv.page_size, config.model.path, config.kv.memory_bytes) == (3, "from-env", 1000)
    assert config.runtime == "in_process"
    assert load_config(file, environment, ["runtime=ray"]).runtime == "ray"
    assert load_config(file, {}).kv.page_size == 1


def test_the_last_setting_of_a_key_wins() -> None:
    assert load_config(None, {}, ["kv.page_size=3", "kv.page_size=4"]).kv.page_size == 4


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("model.path", "123", "123"),
        ("model.path", "1e3", "1e3"),
        ("model.path", "null", "null"),
        ("model.path", "a=b", "a=b"),
        ("cluster.namespace", "12:30", "12:30"),
        ("cluster.namespace", "yes", "yes"),
        ("cluster.ray_address", "", ""),
        ("gateway.listen", "[::1]:0", "[::1]:0"),
        ("kv.memory_bytes", "1048576", 1048576),
        ("head.num_gpus", "0.25", 0.25),
        ("security.insecure", "true", True),
        ("security.insecure", "0", False),
        ("head.resources", "{fast: 1, big: 0.5}", {"fast": 1.0, "big": 0.5}),
        ("experts.threads", "0", 0),
    ],
)
def test_text_becomes_what_the_key_wants(key: str, text: str, expected: object) -> None:
    environment = {"EIGHTWINDS_" + key.upper().replace(".", "__"): text}
    assert value(load_config(None, environment), key) == expected
    assert value(load_config(None, {}, [f"{key}={text}"]), key) == expected
    assert value(load_config(None, {}, [f" {key} ={text}"]), key) == expected


def test_a_key_below_resources_can_be_set() -> None:
    assert load_config(None, {}, ["experts.resources.slot=1"]).experts.resources == {"slot": 1.0}


def test_other_variables_of_the_environment_are_left_alone() -> None:
    load_config(None, {"EIGHTWINDS_TOKEN": "x", "HOME": "/", "KV__PAGE_SIZE": "9", "XEIGHTWINDS_KV__PAGE_SIZE": "9"})


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("kv.pagesize", "kv.page_size"),
        ("modle.path", "model.path"),
        ("modell.path", "model.path"),
        ("model.paths", "model.path"),
        ("gateway.max_queue_requests", "gateway.max_queued_requests"),
        ("transprot", "transport"),
        ("run_time", "runtime"),
        ("scheduler.max_running", "scheduler.max_running_requests"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, near: str, tmp_path: Path) -> None:
    said = message(f"{key}=1")
    assert "unknown configuration key" in said and said.endswith(f"did you mean {near}?")
    section, _, rest = key.partition(".")
    file = write(tmp_path, f"{section}: {{{rest}: 1}}\n" if rest else f"{section}: 1\n")
    assert message(file=file).endswith(f"did you mean {near}?")
    if rest:
        variable = "EIGHTWINDS_" + key.upper().replace(".", "__")
        assert message(environment={variable: "1"}).endswith(f"did you mean {near}?")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model.dtype=bf16", r"model.dtype: 'bf16' is none of .*; did you mean bfloat16\?"),
        (
            "transport=objectrefs",
            r"transport: 'objectrefs' is none of .*; did you mean object_refs\?",
        ),
        ("runtime=process", r"runtime: 'process' is none of 'ray' or 'in_process'; did you mean in_process\?"),
        ("load.enabled=true", "unknown configuration key load"),
        ("experts.fault_tolerance=true", "unknown configuration key experts.fault_tolerance; did you mean"),
        ("kv.page_size=0", "kv.page_size: .*greater than or equal to 1"),
        ("kv.page_size=1025", "kv.page_size: .*1024"),
        ("kv.memory_share=1.5", "kv.memory_share: .*less than 1"),
        ("kv.memory_bytes=-1", "kv.memory_bytes: .*greater than 0"),
        ("kv.memory_bytes=a lot", "kv.memory_bytes: .*integer.*got 'a lot'"),
        ("head.num_gpus=-1", "head.num_gpus: "),
        ("head.grace_s=0", "head.grace_s: .*greater than 0"),
        ("head.grace_s=nan", "head.grace_s: .*finite"),
        ("experts.grace_s=inf", "experts.grace_s: .*finite"),
        ("experts.count=0", "experts.count: "),
        ("experts.threads=1.5", "experts.threads: "),
        ("scheduler.max_running_requests=5000", "scheduler.max_running_requests: .*4096"),
        ("scheduler.max_tokens_per_step=0", "scheduler.max_tokens_per_step: "),
        ("gateway.listen=50051", "gateway.listen: must be HOST:PORT, for example 127.0.0.1:50051"),
        ("gateway.listen=host:99999", "gateway.listen: must be HOST:PORT"),
        ("gateway.http=:8000", "gateway.http: must be HOST:PORT"),
        ("gateway.max_queued_requests=0", "gateway.max_queued_requests: "),
        ("gateway.grace_s=-1", "gateway.grace_s: "),
        ("cluster.namespace=", "cluster.namespace: "),
        ("security.insecure=perhaps", "security.insecure: .*boolean"),
        ("model=demo", "model: .*'demo'"),
        ("model.path.deep=1", "model.path: "),
        ("head.resources={a: [}", "--set head.resources: .*not valid YAML"),
        ("nothing", "--set nothing: write it as a.b=c"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(setting: str, says: str) -> None:
    assert re.search(says, message(setting))


def test_everything_that_is_wrong_is_said_at_once() -> None:
    said = message("kv.page_size=0", "modle.path=x", "head.threads=-1").splitlines()
    assert [line.partition(":")[0] for line in said] == ["head.threads", "kv.page_size", said[2].partition(":")[0]]
    assert "modle" in said[2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kv: [1, 2", "not valid YAML"),
        ("- a\n- b\n", "must hold a mapping"),
        ("just text", "must hold a mapping"),
        ("kv: 5\n", "kv: "),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text: str, says: str, tmp_path: Path) -> None:
    assert says in message(file=write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.yaml'} cannot be read: No such file" in message(file=tmp_path / "none.yaml")
    assert f"{tmp_path} cannot be read: Is a directory" in message(file=tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"model: {path: caf\xe9}\n")
    assert "not valid YAML" in message(file=latin)


def test_an_empty_file_and_empty_sections_mean_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, ""), {}) == Config()
    empty = write(tmp_path, "kv:\n  # page_size: 16\nmodel:\n")
    assert load_config(empty, {}) == Config()
    assert load_config(empty, {}, ["kv.page_size=32"]).kv.page_size == 32


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Config().kv.page_size = 3  # type: ignore[misc]


def test_every_key_has_a_default_and_a_path() -> None:
    keys = known_keys()
    assert len(keys) == len(set(keys)) > 20
    for key in keys:
        assert not isinstance(value(Config(), key), BaseModel)
    fixed = "model.path model.dtype runtime transport head.num_gpus experts.grace_s cluster.namespace experts.num_gpus"
    fixed += " kv.memory_bytes kv.page_size scheduler.max_running_requests scheduler.max_tokens_per_step"
    assert {*fixed.split(), "gateway.max_queued_requests"} <= set(keys)


def test_defaults_are_written_nowhere_else() -> None:
    """A second default goes stale. EngineConfig, ActorSpec and the rest take what they are given."""
    addresses = re.compile(r"127\.0\.0\.1:(50051|8000)|:(50051|8000)\b")
    elsewhere = [
        f"{path.name}:{number}"
        for path in sorted((ROOT / "cluster").rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if addresses.search(line) and path.name not in ("sections.py", "options.py")
    ]
    assert not elsewhere, f"a default address outside sections.py (and the client's in cli/options.py): {elsewhere}"
