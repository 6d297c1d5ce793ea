"""`serve` and `down`: what becomes of their options. What they do is tested elsewhere."""

import stat
from pathlib import Path

import pytest

from cluster.launch import serve
from cluster.settings import tokens
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


def test_a_token_is_printed_once_and_its_hash_kept(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    first, second = run("token", "alice", "--file", str(file)), run("token", "ops", "--scope", "cluster,inference")
    assert (first.exit_code, second.exit_code, first.stderr) == (0, 0, "")
    (entry,) = tokens.parse(file.read_text(encoding="utf-8"))
    assert tokens.find(first.stdout.strip(), [entry]) == tokens.Holder("alice", frozenset({tokens.Scope.INFERENCE}))
    line = second.stderr.splitlines()[-1]
    assert tokens.find(second.stdout.strip(), tokens.parse(line)) is not None and "ops cluster,inference " in line
    assert second.stdout.strip() not in second.stderr


def test_a_token_goes_into_a_file_of_its_owner(tmp_path: Path) -> None:
    file, out = tmp_path / "tokens", tmp_path / "alice.token"
    made = run("token", "alice", "--file", str(file), "--out", str(out))
    assert made.exit_code == 0 and "ew_" not in made.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert tokens.TokenFile(file).find(out.read_text(encoding="utf-8").strip()) is not None
    again = run("token", "alice", "--file", str(file), "--out", str(out))
    assert again.exit_code == 2 and "exists already" in again.output
    lost = run("token", "alice", "--file", "/nowhere/tokens", "--out", str(tmp_path / "lost"))
    assert lost.exit_code == 2 and not (tmp_path / "lost").exists()


@pytest.mark.parametrize("arguments", [["a b"], ["alice", "--scope", "root"], ["alice", "--file", "/nowhere/tokens"]])
def test_a_token_that_cannot_be_made_exits_with_2(arguments: list[str]) -> None:
    result = run("token", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("eightwinds: ")
