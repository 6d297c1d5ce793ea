"""Tools over HTTP and over gRPC: told to the template, kept to their schemas, and read out of the output."""

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.engine.served_model import ServedModel
from model.chat.calls import nine
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.checkpoints import random_weights, tiny, write
from tests.fakes import FakeHead
from tests.openai_door import ask, chat, saying
from tests.serving import Serving, serve_locally
from tests.text_folders import END, HERMES, START, V3, text_folder

ServeFake = Callable[..., Serving]
PLACE: dict[str, Any] = {"type": "object", "properties": {"place": {"enum": ["Ulm", "Rom"]}}, "required": ["place"]}
PLACE |= {"additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Sky.", "parameters": PLACE}}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": NOTHING}}
TAGGED = '<tool_call>\n{"name": "weather", "arguments": {"place": "Ulm"}}\n</tool_call>'
LISTED = '[{"name": "weather", "arguments": {"place": "Ulm"}}, {"name": "clock", "arguments": {}}]'


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = tmp_path_factory.mktemp("hermes")
    made = tiny(vocab_size=32002, eos_token_id=2, max_position_embeddings=2048)
    text_folder(folder, added={END: 32000, START: 32001}, template=HERMES, eos_token=END)
    write(folder, made, random_weights(made))
    return ServedModel.open(str(folder))


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = tmp_path_factory.mktemp("third")
    made = tiny(vocab_size=32768, eos_token_id=2, max_position_embeddings=2048)
    write(folder, made, random_weights(made))
    shutil.copy(V3, folder / "tokenizer.model")
    return ServedModel.open(str(folder))


@pytest.fixture(params=["hermes", "third"])
def computing(request: pytest.FixtureRequest) -> Iterator[Serving]:
    """A model that computes, so that its outputs are kept to their rules."""
    server = serve_locally(request.getfixturevalue(request.param), "kv.memory_bytes=16777216")
    yield server
    server.close()


def joined(events: list[Any]) -> tuple[str, dict[int, dict[str, str]], str]:
    """A stream as OpenAI's own client puts it together: every text that is repeated is joined."""
    text, calls, finish = "", dict[int, dict[str, str]](), ""
    for event in events:
        (choice,) = event["choices"]
        text += choice["delta"].get("content") or ""
        finish = choice["finish_reason"] or finish
        for part in choice["delta"].get("tool_calls", ()):
            call = calls.setdefault(part["index"], {"id": "", "type": "", "name": "", "arguments": ""})
            call["id"] += part.get("id", "")
            call["type"] += part.get("type", "")
            call["name"] += part["function"].get("name", "")
            call["arguments"] += part["function"]["arguments"]
    return text, calls, finish


@pytest.mark.parametrize("kind", ["hermes", "third"])
def test_calls_are_told_whole_and_in_parts(kind: str, serve_fake: ServeFake, request: pytest.FixtureRequest) -> None:
    """F21, F22."""
    served: ServedModel = request.getfixturevalue(kind)
    head = saying(served, "I look. ", TAGGED) if kind == "hermes" else saying(served, "I look.", 5, LISTED)
    server = serve_fake(head, served)
    wanted: dict[str, Any] = {"tools": [WEATHER, CLOCK], "max_tokens": 200, "ignore_eos": False}
    (choice,) = chat(server, **wanted).json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"].strip() == "I look."
    first = choice["message"]["tool_calls"][0]
    assert (first["type"], first["function"]["name"]) == ("function", "weather")
    assert json.loads(first["function"]["arguments"]) == {"place": "Ulm"}
    assert len(first["id"]) == 9 and first["id"].isalnum(), "F23"
    assert len(choice["message"]["tool_calls"]) == (1 if kind == "hermes" else 2)

    text, calls, finish = joined(chat(server, stream=True, **wanted).events)
    assert (text.strip(), finish) == ("I look.", "tool_calls")
    for whole, call in zip(choice["message"]["tool_calls"], calls.values(), strict=True):
        assert (call["type"], call["name"]) == ("function", whole["function"]["name"]), "told once"
        assert call["arguments"] == whole["function"]["arguments"]
        assert len(call["id"]) == 9


def test_a_call_alone_has_no_content(hermes: ServedModel, serve_fake: ServeFake) -> None:
    """F22."""
    server = serve_fake(saying(hermes, TAGGED), hermes)
    (choice,) = chat(server, tools=[WEATHER], max_tokens=200, ignore_eos=False).json["choices"]
    assert choice["message"]["content"] is None


def test_text_that_looks_like_a_control_token_calls_nothing(third: ServedModel, serve_fake: ServeFake) -> None:
    server = serve_fake(saying(third, f"[TOOL_CALLS] {LISTED}"), third)
    (choice,) = chat(server, tools=[WEATHER, CLOCK], max_tokens=200, ignore_eos=False).json["choices"]
    assert "tool_calls" not in choice["message"]
    assert choice["message"]["content"].lstrip().startswith("[TOOL_CALLS]")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_arguments_keep_to_their_schema_where_a_call_is_demanded(choice: Any, computing: Serving) -> None:
    """F22, with random weights, which would write anything."""
    wanted: dict[str, Any] = {"tools": [WEATHER, CLOCK], "tool_choice": choice, "parallel_tool_calls": False}
    for seed in range(3):
        answered = chat(computing, max_tokens=150, ignore_eos=False, seed=seed, **wanted)
        (found,) = answered.json["choices"]
        assert found["finish_reason"] == "tool_calls", answered.raw
        (call,) = found["message"]["tool_calls"]
        assert call["function"]["name"] in (("weather",) if choice != "required" else ("weather", "clock"))
        arguments = json.loads(call["function"]["arguments"])
        if call["function"]["name"] == "weather":
            assert arguments["place"] in ("Ulm", "Rom")
        text, calls, finish = joined(
            chat(computing, max_tokens=150, ignore_eos=False, seed=seed, stream=True, **wanted).events
        )
        assert (text, finish) == ("", "tool_calls")
        assert calls[0]["arguments"] == call["function"]["arguments"], "the same seed, the same tokens"


def test_a_template_without_tools_refuses_them(chatting: Serving) -> None:
    """F21: not dropped in silence."""
    answered = chat(chatting, tools=[WEATHER], ignore_eos=False)
    assert (answered.status, answered.error["param"]) == (400, "tools")
    assert "this model's template has no tools" in answered.error["message"]
    assert chat(chatting, tools=[WEATHER], tool_choice="none").status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "nosuch"}}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools"),
        ({"tools": [WEATHER] * 129}, "tools"),
        ({"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "content": "", "tool_calls": 3}]}, "messages"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "messages",
        ),
    ],
)
def test_a_wrong_field_of_tools_is_named(
    fields: dict[str, Any], param: str, hermes: ServedModel, serve_fake: ServeFake
) -> None:
    """F21."""
    answered = chat(serve_fake(FakeHead(), hermes), ignore_eos=False, **fields)
    if fields["messages"][0]["role"] == "user" if "messages" in fields else False:
        assert answered.status == 200, "calls of a user are extra keys"
        return
    assert (answered.status, answered.error["param"]) == (400, param), answered.raw


def test_foreign_ids_are_made_to_fit(third: ServedModel, serve_fake: ServeFake) -> None:
    """F23."""
    server = serve_fake(FakeHead(), third)
    call = {"id": "call_abc", "type": "function", "function": {"name": "clock", "arguments": ""}}
    messages = [
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_abc", "content": "noon"},
    ]
    tokens = ask(server, "/tokenize", {"messages": messages, "tools": [CLOCK]}).json["tokens"]
    text = third.tokenizer.decode(tokens, special_tokens=True)
    assert text.count(nine("call_abc")) == 2 and "call_abc" not in text
    assert "[AVAILABLE_TOOLS]" in text and '"noon"' in text


def test_tools_over_grpc(hermes: ServedModel, serve_fake: ServeFake) -> None:
    server = serve_fake(saying(hermes, "I look. ", TAGGED), hermes)
    tool = pb.Tool(name="weather", description="Sky.", parameters=json.dumps(PLACE))
    said = pb.Chat(messages=[pb.ChatMessage(role=pb.ROLE_USER, content="Rain?")], tools=[tool])
    request = pb.GenerateRequest(prompt=pb.Prompt(chat=said), stopping=pb.Stopping(max_tokens=200))
    (output,) = server.client.stub.Generate(request).outputs
    assert output.finish.reason == pb.FINISH_REASON_TOOL_CALLS
    assert (output.text.strip(), len(output.tool_calls)) == ("I look.", 1)
    assert json.loads(output.tool_calls[0].arguments) == {"place": "Ulm"}
    messages = list(server.client.stub.GenerateStream(request))
    parts = [part for message in messages for part in message.tool_calls]
    assert [part.name for part in parts if part.name] == ["weather"]
    assert "".join(part.arguments for part in parts) == output.tool_calls[0].arguments
    (model,) = server.client.stub.ListModels(pb.ListModelsRequest()).models
    assert (model.chat, model.tools, model.no_chat_reason) == (True, True, "")


def test_names_of_tokens_in_a_text_prompt_are_parsed(hermes: ServedModel, serve_fake: ServeFake) -> None:
    """F17, F18."""
    server = serve_fake(FakeHead(), hermes)
    text = f"<s>{START}user\nhi{END}"
    tokens = ask(server, "/tokenize", {"prompt": text}).json["tokens"]
    assert (tokens[:2], tokens[-1], tokens.count(1)) == ([1, 32001], 32000, 1)
    usage = ask(server, "/v1/completions", {"prompt": text, "max_tokens": 1}).json["usage"]
    assert usage["prompt_tokens"] == len(tokens)
    literal = {"prompt": text, "max_tokens": 1, "eightwinds_literal": True}
    assert ask(server, "/v1/completions", literal).json["usage"]["prompt_tokens"] > len(tokens)
    bare = {"prompt": "hi", "max_tokens": 1, "add_special_tokens": False}
    assert ask(server, "/v1/completions", bare).json["usage"]["prompt_tokens"] == 1
    assert ask(server, "/tokenizer_info").json["chat_template"] == HERMES


def test_an_empty_text_without_a_first_token_is_refused(hermes: ServedModel, serve_fake: ServeFake) -> None:
    answered = ask(serve_fake(FakeHead(), hermes), "/v1/completions", {"prompt": "", "add_special_tokens": False})
    assert (answered.status, answered.error["param"]) == (400, "prompt")
