"""The client in front of a server."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from cluster.client.client import Client, read_token
from cluster.client.messages import text_request
from cluster.settings.request_options import Options
from tests.fakes import FakeHead
from tests.serving import Serving

ServeFake = Callable[..., Serving]


def test_the_client_generates_streams_and_lists(serving: Serving) -> None:
    request = text_request("My favourite condiment is", Options(max_tokens=5, temperature=0.0))
    with Client(serving.address) as client:
        text = client.generate(request).outputs[0].text
        assert "".join(message.text for message in client.stream(request)) == text
        assert [model.id for model in client.models()] == ["demo"]


def test_a_timeout_is_the_calls_deadline(serve_fake: ServeFake) -> None:
    head = FakeHead()
    server = serve_fake(head)
    head.hold()
    calls = (
        lambda: server.client.generate(text_request("a", Options(max_tokens=3)), timeout=0.05),
        lambda: list(server.client.stream(text_request("a", Options(max_tokens=3)), timeout=0.05)),
    )
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED


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
