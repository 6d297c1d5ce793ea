"""The commands: their options, what they read, and their exit codes. What they do is tested elsewhere."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cluster import cli, serve
from cluster.client import text_request
from cluster.config import Config
from tests.serving import Serving

COMMANDS = ("serve", "down", "generate", "doctor")


def run(*arguments: str, stdin: str = "") -> Result:
    """A command without the variables of whoever runs the tests."""
    theirs = {name: None for name in os.environ if name.startswith("EIGHTWINDS_")}
    return CliRunner().invoke(cli.app, list(arguments), input=stdin, env=theirs)


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    "arguments", [["guess"], ["generate"], ["generate", "x", "--max-tokens", "many"], ["serve", "--no"]]
)
def test_a_command_line_that_makes_no_sense_exits_with_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_without_a_command_help_is_shown() -> None:
    assert "Usage" in run().output


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
    settings = ["--set", "model.path=other", "--set", "kv.page_size=32"]
    assert run("serve", *options, *settings, "--keep-actors").exit_code == 7
    ((config, keep_actors),) = served
    assert (config.model.path, config.gateway.listen, config.gateway.http) == ("123", "127.0.0.1:0", "[::1]:0")
    assert (config.cluster.ray_address, config.security.insecure, config.kv.page_size) == ("auto", True, 32)
    assert keep_actors


def test_without_options_serve_takes_the_defaults(served: list[tuple[Config, bool]]) -> None:
    assert run("serve").exit_code == 7
    assert served == [(Config(), False)]


def test_the_file_and_the_environment_reach_serve(served: list[tuple[Config, bool]], tmp_path: Path) -> None:
    file = tmp_path / "eightwinds.yaml"
    file.write_text("kv: {page_size: 8}\nmodel: {path: from-file}\n", encoding="utf-8")
    environment = {"EIGHTWINDS_MODEL__PATH": "from-environment"}
    assert CliRunner().invoke(cli.app, ["serve", "--config", str(file)], env=environment).exit_code == 7
    assert (served[0][0].kv.page_size, served[0][0].model.path) == (8, "from-environment")


def test_generate_prints_the_continuation(serving: Serving) -> None:
    text = "My favourite condiment is"
    expected = serving.client.generate(text_request(text, 8, 0.0)).outputs[0].text + "\n"
    options = ("--address", serving.address, "--max-tokens", "8", "--temperature", "0")
    result = run("generate", text, *options)
    assert (result.exit_code, result.stdout) == (0, expected)
    assert run("generate", "-", *options, stdin=text).stdout == expected, "- reads standard input"


def test_generate_passes_seed_stops_and_json_on(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = ("generate", "My favourite", "--address", serving.address, "--max-tokens", "5", "--seed", "3")
    assert run(*seeded).stdout == run(*seeded).stdout != ""
    assert run(*seeded, "--json").stdout.startswith('{"request_id": ')
    seen: list[tuple[object, ...]] = []

    def record(*arguments: object) -> int:
        seen.append(arguments)
        return 0

    monkeypatch.setattr("cluster.client.print_generation", record)
    assert run(*seeded, "--stop", "a", "--stop", "b").exit_code == 0
    assert seen == [(serving.address, "My favourite", 5, None, 3, ["a", "b"], False)]


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--max-tokens", "0"], 13), (["--temperature", "3"], 13), (["--seed", "1"], 0)]
)
def test_the_exit_code_of_generate_is_ten_plus_the_status(arguments: list[str], code: int, serving: Serving) -> None:
    result = run(
        "generate", "Hi", "--address", serving.address, *(["--max-tokens", "2"] if not code else []), *arguments
    )
    assert result.exit_code == code
    assert bool(result.stderr) == bool(code)
