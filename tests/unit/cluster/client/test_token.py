"""Where a client gets its bearer token from."""

from pathlib import Path

import pytest

from cluster.client.token import read_token


def test_a_token_comes_from_the_file_else_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("ew_secret\n", encoding="utf-8")
    assert read_token(file, {"EIGHTWINDS_TOKEN": "other"}) == "ew_secret"
    assert read_token(None, {"EIGHTWINDS_TOKEN": "other"}) == "other"
    assert read_token(None, {}) == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no token"),
        (b"two words", "holds no token"),
        (b"one\ntwo", "holds no token"),
        ("gehe\u00ef".encode(), "holds no token"),
        (b"\xff\xfe", "holds no text"),
        (b"alice inference sha256:" + b"0" * 64, "holds the server's hashes"),
    ],
)
def test_a_file_without_a_token_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_token(file, {})
