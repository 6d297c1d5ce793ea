"""The commands: their options, what they read, and their exit codes. What they do is tested elsewhere."""

import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cluster.cli import app, terminal
from cluster.client.client import Client, Options, text_request
from cluster.launch import serve
from cluster.settings import tokens
from cluster.settings.config import Config
from tests.serving import Serving

COMMANDS = ("serve", "down", "generate", "chat", "token", "doctor")


def run(*arguments: str, stdin: str = "") -> Result:
    """A command without the variables of whoever runs the tests."""
    theirs = {name: None for name in os.environ if name.startswith("EIGHTWINDS_")}
    return CliRunner().invoke(app.app, list(arguments), input=stdin, env=theirs)


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
    assert CliRunner().invoke(app.app, ["serve", "--config", str(file)], env=environment).exit_code == 7
    assert (served[0][0].kv.page_size, served[0][0].model.path) == (8, "from-environment")


def test_generate_prints_the_continuation(serving: Serving) -> None:
    text = "My favourite condiment is"
    expected = (
        serving.client.generate(text_request(text, Options(max_tokens=8, temperature=0.0))).outputs[0].text + "\n"
    )
    options = ("--address", serving.address, "--max-tokens", "8", "--temperature", "0")
    result = run("generate", text, *options)
    assert (result.exit_code, result.stdout) == (0, expected)
    assert run("generate", "-", *options, stdin=text).stdout == expected, "- reads standard input"


def test_a_seed_fixes_the_continuation(serving: Serving) -> None:
    seeded = ("generate", "My favourite", "--address", serving.address, "--max-tokens", "5", "--seed", "3")
    assert run(*seeded).stdout == run(*seeded).stdout != ""
    assert run(*seeded, "--json").stdout.startswith('{"request_id": ')


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Options, dict[str, object]]]:
    """What the console was asked for."""
    seen: list[tuple[Options, dict[str, object]]] = []

    def record(client: Client, *arguments: object, **more: object) -> int:
        assert isinstance(arguments[-1], Options)
        seen.append((arguments[-1], more))
        return 0

    monkeypatch.setattr(terminal, "generate", record)
    monkeypatch.setattr(terminal, "chat", record)
    return seen


SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 7,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": -0.3,
    "seed": 3,
    "max_tokens": 5,
}


def as_options(values: dict[str, float]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_every_option_of_generate_reaches_the_request(
    asked: list[tuple[Options, dict[str, object]]], tmp_path: Path
) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}', encoding="utf-8")
    more = ["--stop", "a", "--stop", "b", "--ignore-eos", "--n", "2", "--logprobs", "1", "--priority", "-4"]
    more += ["--min-tokens", "1", "--json-schema", f"@{tmp_path / 'schema.json'}", "--regex", "x"]
    more += ["--timeout", "9", "--retries", "3", "--patience", "7", "--json"]
    assert run("generate", "Hi", *as_options(SAMPLING), *more).exit_code == 0
    wanted = Options(
        **SAMPLING,  # type: ignore[arg-type]  # by field name
        stop=["a", "b"],
        ignore_eos=True,
        n=2,
        logprobs=1,
        priority=-4,
        min_tokens=1,
        json_schema='{"type": "object"}',
        regex="x",
    )
    assert asked == [(wanted, {"as_json": True, "timeout": 9.0, "retries": 3, "patience": 7.0})]


def test_every_option_of_chat_reaches_the_request(asked: list[tuple[Options, dict[str, object]]]) -> None:
    assert run("chat", *as_options(SAMPLING), "--stop", "a", "--system", "Be brief.", "--retries", "2").exit_code == 0
    wanted = Options(**SAMPLING, stop=["a"])  # type: ignore[arg-type]  # by field name
    assert asked == [(wanted, {"system": "Be brief.", "retries": 2})]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--token-file", "/nowhere/token"], "/nowhere/token cannot be read"),
        (["--json-schema", "@/nowhere/schema"], "/nowhere/schema cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_exits_with_2(arguments: list[str], says: str) -> None:
    result = run("generate", "Hi", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("eightwinds: ") and says in result.stderr


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


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--max-tokens", "0"], 13), (["--temperature", "3"], 13), (["--seed", "1"], 0)]
)
def test_the_exit_code_of_generate_is_ten_plus_the_status(arguments: list[str], code: int, serving: Serving) -> None:
    result = run(
        "generate", "Hi", "--address", serving.address, *(["--max-tokens", "2"] if not code else []), *arguments
    )
    assert result.exit_code == code
    assert bool(result.stderr) == bool(code)
