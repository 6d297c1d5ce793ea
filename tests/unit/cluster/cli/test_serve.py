"""`serve` and `down`: what becomes of their options. What they do is tested elsewhere."""

from pathlib import Path

import pytest

from cluster.launch import serve
from cluster.settings.config import Config
from tests.commands import run


@pytest.mark.parametrize("command", ["serve", "down"])
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("kv.pagesize=4", "unknown configuration key kv.pagesize; did you mean kv.page_size?"),
        ("kv.page_size=0", "kv.page_size: "),
        ("nonsense", "write it as a.b=c"),
    ],
)
def test_a_wrong_configuration_exits_with_2_before_anything_starts(command: str, setting: str, says: str) -> None:
    result = run(command, "--set", setting)
    assert result.exit_code == 2
    assert result.stderr.startswith("eightwinds: ") and says in result.stderr
    assert result.stdout == ""


def test_a_configuration_file_that_is_missing_exits_with_2(tmp_path: Path) -> None:
    result = run("serve", "--config", str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert "none.yaml cannot be read" in result.stderr


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, bool]]:
    """What `serve` was called with."""
    calls: list[tuple[Config, bool]] = []

    def record(config: Config, keep_actors: bool) -> int:
        calls.append((config, keep_actors))
        return 7

    monkeypatch.setattr(serve, "serve", record)
    return calls


def test_options_of_serve_are_configuration_and_win_over_set(served: list[tuple[Config, bool]]) -> None:
    options = ["--model", "123", "--listen", "127.0.0.1:0", "--http", "[::1]:0", "--ray-address", "auto", "--insecure"]
    options += ["--token-file", "tokens"]
    settings = ["--set", "model.path=other", "--set", "kv.page_size=32"]
    assert run("serve", *options, *settings, "--keep-actors").exit_code == 7
    ((config, keep_actors),) = served
    assert (config.model.path, config.gateway.listen, config.gateway.http) == ("123", "127.0.0.1:0", "[::1]:0")
    assert (config.cluster.ray_address, config.security.insecure, config.kv.page_size) == ("auto", True, 32)
    assert (config.security.token_file, keep_actors) == ("tokens", True)


def test_without_options_serve_takes_the_defaults(served: list[tuple[Config, bool]]) -> None:
    assert run("serve").exit_code == 7
    assert served == [(Config(), False)]


def test_the_file_and_the_environment_reach_serve(served: list[tuple[Config, bool]], tmp_path: Path) -> None:
    file = tmp_path / "eightwinds.yaml"
    file.write_text("kv: {page_size: 8}\nmodel: {path: from-file}\n", encoding="utf-8")
    environment = {"EIGHTWINDS_MODEL__PATH": "from-environment"}
    assert run("serve", "--config", str(file), env=environment).exit_code == 7
    assert (served[0][0].kv.page_size, served[0][0].model.path) == (8, "from-environment")
