"""How a Ray cluster is joined, and what is said when it is not."""

import socket
from pathlib import Path

from cluster.launch.local_ray.auth import RayAuth, answers


def test_a_token_that_is_there_is_used_without_being_told(tmp_path: Path) -> None:
    assert RayAuth.of({}, tmp_path) == RayAuth("disabled", "")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert RayAuth.of({}, tmp_path) == RayAuth("token", str(tmp_path / ".ray" / "auth_token"))
    assert RayAuth.of({"RAY_AUTH_TOKEN_PATH": "/t"}, tmp_path).source == "/t"
    assert RayAuth.of({"RAY_AUTH_TOKEN": "x", "RAY_AUTH_TOKEN_PATH": "/t"}, tmp_path).source == "RAY_AUTH_TOKEN"
    assert RayAuth.of({"RAY_AUTH_MODE": "disabled"}, tmp_path).mode == "disabled"


def test_joining_without_a_token_is_warned_of_and_a_missing_one_fails() -> None:
    assert RayAuth("disabled", "").problem("auto")[0] == "warn"
    assert RayAuth("token", "").problem("auto") == ("fail", "RAY_AUTH_MODE=token, but there is no token")
    assert RayAuth("token", "/t").problem("auto") == ("ok", "a token, from /t")


def test_a_wrong_or_missing_token_is_named_as_the_reason() -> None:
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    assert "the token from /t is not its own" in RayAuth("token", "/t").refused("10.0.0.1:6379", True, error)
    assert "it asks for a token, we have none" in RayAuth("disabled", "").refused("10.0.0.1:6379", True, error)
    assert "there is no token" in RayAuth("token", "").refused("10.0.0.1:6379", True, error)
    assert "token" not in RayAuth("token", "/t").refused("10.0.0.1:6379", False, error)


def test_whether_somebody_answers_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert answers(address)
    assert not answers(address) and not answers("auto")
