"""Beyond this machine only with tokens and TLS, or with the operator's word; `serve` and `doctor` say the same."""

from pathlib import Path

import pytest

from cluster.launch.checks import check_exposure
from cluster.launch.doctor import examine
from cluster.settings.config import load_config
from cluster.settings.tokens import Scope, append, new_token


@pytest.fixture
def file(tmp_path: Path) -> Path:
    append(tmp_path / "tokens", new_token("alice", [Scope.INFERENCE])[1])
    return tmp_path / "tokens"


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.7:0", "some-host:0"])
@pytest.mark.parametrize("key", ["gateway.listen", "gateway.http"])
def test_other_machines_are_let_in_only_with_tokens_and_tls_or_on_request(key: str, address: str, file: Path) -> None:
    setting = f"{key}={address}"
    tokens, tls = f"security.token_file={file}", ("security.certificate=a", "security.key=b")
    with pytest.raises(ValueError, match=r"send requests and anybody .* read them: give --token-file and --cert and"):
        check_exposure(load_config(None, {}, [setting]))
    with pytest.raises(ValueError, match="anybody on the way could read them: give --cert and --key, listen"):
        check_exposure(load_config(None, {}, [setting, tokens]))
    with pytest.raises(ValueError, match="anybody there could send requests: give --token-file, listen"):
        check_exposure(load_config(None, {}, [setting, *tls]))
    check_exposure(load_config(None, {}, [setting, tokens, *tls]))
    check_exposure(load_config(None, {}, [setting, "security.insecure=true"]))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.8.8:0", "[::1]:0", "localhost:0"])
def test_this_machine_may_always_ask(address: str) -> None:
    check_exposure(load_config(None, {}, [f"gateway.listen={address}", f"gateway.http={address}"]))


def finding(*settings: str) -> tuple[str, str]:
    (found,) = [f for f in examine(None, ["gateway.listen=127.0.0.1:0", *settings]) if f.subject == "tokens"]
    return found.level, found.text


def test_doctor_looks_at_the_token_file(file: Path) -> None:
    assert finding() == ("ok", "none asked for: whoever reaches the ports may send requests")
    assert finding(f"security.token_file={file}") == ("ok", f"asked for, by {file}")
    level, text = finding("gateway.http=0.0.0.0:0")
    assert level == "fail" and "anybody there could send requests" in text
    file.write_text("rubbish\n", encoding="utf-8")
    level, text = finding(f"security.token_file={file}")
    assert level == "fail" and "line 1" in text
