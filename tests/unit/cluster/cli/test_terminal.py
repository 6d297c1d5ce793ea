"""How a command ends: one place turns a failed call, a missing token and Ctrl-C into exit codes."""

from pathlib import Path

import pytest
import typer

from cluster.cli.terminal import Destination, connected
from cluster.client.client import Client
from tests.serving import Serving


def test_a_failed_call_is_told_and_exits_with_ten_plus_the_status(
    serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, connected("top", Destination(serving.address)) as client:
        next(client.watch_load(0.01))
    assert ended.value.exit_code == 10 + 3
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("eightwinds top: INVALID_ARGUMENT")
    assert f"(server {serving.address})" in said.err


@pytest.mark.parametrize(("interrupted", "says"), [("", ""), ("it goes on", "eightwinds drain: it goes on\n")])
def test_ctrl_c_ends_with_the_shells_code(interrupted: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, connected("drain", Destination("127.0.0.1:1"), interrupted):
        raise KeyboardInterrupt
    assert (ended.value.exit_code, capsys.readouterr().err) == (130, says)


def test_without_a_token_nothing_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, connected("status", Destination("127.0.0.1:1", tmp_path / "none")):
        raise AssertionError("not reached")
    assert ended.value.exit_code == 2 and "none cannot be read" in capsys.readouterr().err


def test_the_connection_ends_with_the_command(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Client] = []
    monkeypatch.setattr(Client, "close", lambda client: closed.append(client))
    with connected("status", Destination(serving.address)) as client:
        assert client.status().experts and not closed
    assert closed == [client]
