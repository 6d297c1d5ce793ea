"""The client: its requests, its token, and what it says of a failed call."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from cluster.client.client import Client, Options, chat_request, explain, read_token, text_request
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.fakes import FakeHead
from tests.serving import Serving

ServeFake = Callable[..., Serving]


def test_a_text_request_leaves_to_the_server_what_is_not_given() -> None:
    bare = text_request("Hi")
    assert bare.prompt.text == "Hi"
    assert not bare.sampling.ListFields() and not bare.stopping.ListFields()
    full = text_request("Hi", Options(max_tokens=0, temperature=0.0, seed=0, stop=["a", "b"], top_k=0, logprobs=0))
    assert full.stopping.HasField("max_tokens") and full.sampling.HasField("temperature")
    assert full.sampling.HasField("seed") and full.sampling.HasField("top_k") and full.output.HasField("logprobs")
    assert list(full.stopping.stop) == ["a", "b"] and not full.HasField("constraint")


@pytest.mark.parametrize("name", [field.name for field in fields(Options)])
def test_every_option_has_its_field(name: str) -> None:
    value = {"stop": ["a"], "json_schema": "{}", "regex": "a", "ignore_eos": True}.get(name, 1)
    assert text_request("Hi", Options(**{name: value})) != text_request("Hi")  # type: ignore[arg-type]


def test_two_constraints_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="not both"):
        text_request("Hi", Options(json_schema="{}", regex="a"))


def test_a_conversation_keeps_its_roles() -> None:
    request = chat_request([("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?")])
    assert [m.role for m in request.prompt.chat.messages] == [pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_ASSISTANT]
    assert [m.content for m in request.prompt.chat.messages] == ["Be brief.", "Hi", "Yes?"]


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


def test_a_failed_call_in_one_sentence(serving: Serving, serve_fake: ServeFake) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        serving.client.generate(pb.GenerateRequest(n=9, priority=500))
    said = explain(caught.value)
    assert said.startswith("INVALID_ARGUMENT: prompt: must be")
    assert "n: must be 1 to 8; priority: must be -100 to 100" in said
    stopped = serve_fake(FakeHead())
    stopped.engine.stop()
    with pytest.raises(grpc.RpcError) as caught:
        stopped.client.generate(text_request("a"))
    assert explain(caught.value).endswith("; try again in 5 s")
