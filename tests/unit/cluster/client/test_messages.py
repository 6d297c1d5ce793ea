"""The requests that a client makes."""

from dataclasses import fields

import pytest

from cluster.client.messages import chat_request, text_request
from cluster.settings.request_options import Options
from protos.eightwinds.v1 import inference_pb2 as pb


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
