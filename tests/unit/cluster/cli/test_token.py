"""`token`: where the secret goes, and where its hash."""

import stat
from pathlib import Path

import pytest

from cluster.settings import tokens
from tests.commands import run


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
