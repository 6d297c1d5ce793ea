"""What holds for every command."""

import pytest

from tests.commands import run

COMMANDS = (
    *("serve", "down", "generate", "chat", "token", "doctor"),
    *("status", "scale", "drain", "policy", "top"),
)


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
