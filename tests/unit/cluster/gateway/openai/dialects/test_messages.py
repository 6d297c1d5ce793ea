"""Anthropic's messages (F27 of docs/clients.md)."""

import json
from typing import Any

from cluster.engine.served_model import ServedModel
from cluster.gateway.openai.dialects.messages import MESSAGES
from cluster.settings.tokens import Scope, TokenFile, append, new_token
from tests.dialects import (
    ABOUT,
    BODY,
    MESSAGES_PATH,
    PLACE,
    USAGE,
    ServeFake,
    named_events,
    responded,
    said,
    streaming,
)
from tests.engines import engine_bounds
from tests.fakes import FakeHead
from tests.openai_door import HELLO, ask, chat, saying
from tests.serving import Serving

TOOLS: Any = [{"name": "weather", "description": "Sky.", "input_schema": PLACE}]


def test_a_text_is_that_of_a_chat(looking: Serving) -> None:
    plain = chat(looking, max_tokens=4).json
    answer = said(looking, max_tokens=4).json
    assert answer["content"] == [{"type": "text", "text": plain["choices"][0]["message"]["content"]}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "max_tokens")
    counts = answer["usage"]["input_tokens"] + answer["usage"]["cache_read_input_tokens"]
    assert (counts, answer["usage"]["output_tokens"]) == (plain["usage"]["prompt_tokens"], 4)
    counted = ask(looking, f"{MESSAGES_PATH}/count_tokens?beta=true", {"messages": HELLO}).json
    assert counted == {"input_tokens": counts}


def test_blocks_become_a_conversation(looking: Serving) -> None:
    """An answer of a tool stands before the user's text beside it; thoughts are left out."""
    call = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"place": "Ulm"}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sunny"}]}
    thought = {"type": "thinking", "thinking": "hm", "signature": "x"}
    turns = [*HELLO, {"role": "assistant", "content": [thought, {"type": "text", "text": "I look."}, call]}]
    turns.append({"role": "user", "content": [{"type": "text", "text": "And?"}, result]})
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    body = {"messages": turns, "system": system, "tools": TOOLS}
    counted = ask(looking, f"{MESSAGES_PATH}/count_tokens", body).json["input_tokens"]
    function = {"name": "weather", "arguments": '{"place": "Ulm"}'}
    told: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, *HELLO]
    calls = [{"id": "c1", "type": "function", "function": function}]
    told += [{"role": "assistant", "content": "I look.", "tool_calls": calls}]
    told += [{"role": "tool", "tool_call_id": "c1", "content": "sunny"}, {"role": "user", "content": "And?"}]
    weather = {"type": "function", "function": {"name": "weather", "description": "Sky.", "parameters": PLACE}}
    assert ask(looking, "/tokenize", {"messages": told, "tools": [weather]}).json["count"] == counted


def test_a_call_is_told_whole_and_in_parts(looking: Serving) -> None:
    answer = said(looking, tools=TOOLS).json
    text, call = answer["content"]
    assert (text["text"].strip(), answer["stop_reason"]) == ("I look.", "tool_use")
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"place": "Ulm"})
    events = named_events(said(looking, tools=TOOLS, stream=True))
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    blocks = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert (blocks, kinds.count("content_block_stop")) == (["text", "tool_use"], 2)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas).strip() == "I look."
    assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == {"place": "Ulm"}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-2]["usage"]["output_tokens"] == answer["usage"]["output_tokens"]
    places = [event["index"] for event in events if event["type"].startswith("content_block")]
    assert places == sorted(places)


def test_what_stopped_it_is_told(hermes: ServedModel, serve_fake: ServeFake) -> None:
    server = serve_fake(saying(hermes, "north south"), hermes)
    answer = said(server, stop_sequences=["sou"]).json
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "sou")
    assert said(server).json["stop_reason"] == "end_turn"
    (choice,) = chat(server, stop=["sou"], ignore_eos=False, max_tokens=200).json["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "sou"), "a chat tells it as vLLM does"


def test_a_call_must_be_answered_whatever_stopped_it() -> None:
    choice = {"message": {"content": ""}, "finish_reason": "tool_calls", "stop_reason": "x"}
    answer = streaming(MESSAGES).whole(ABOUT | {"choices": [choice], "usage": USAGE})
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("tool_use", None)


def test_an_answer_keeps_to_a_schema() -> None:
    form = {"format": {"type": "json_schema", "schema": PLACE}}
    wanted = MESSAGES.read(BODY | {"output_config": form}, "r")
    assert json.loads(wanted.requests[0].constraint.json_schema) == PLACE


def test_a_block_that_is_another_each_time_is_left_out() -> None:
    """The prefix cache would never be hit."""
    blocks = [{"type": "text", "text": f"x-anthropic-billing-header: cch={i}"} for i in range(2)]
    said = MESSAGES.read(BODY | {"system": [*blocks, {"type": "text", "text": "Be brief."}]}, "r")
    assert [message.content for message in said.requests[0].prompt.chat.messages] == ["Be brief.", "hello"]


def test_failures_are_anthropics(chatting: Serving) -> None:
    image = [{"role": "user", "content": [{"type": "image"}]}]
    call = [{"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": 0}]}]
    odd: list[tuple[dict[str, Any], str]] = [({"messages": image}, "messages"), ({"messages": 3}, "messages")]
    odd += [
        ({"temperature": "hot"}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": call}, "messages"),
    ]
    odd += [
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages"),
        ({"stop_sequences": 3}, "stop_sequences"),
    ]
    odd += [({"tools": [{"name": "f"}]}, "tools"), ({"tool_choice": {"type": "tool"}}, "tool_choice")]
    odd += [({"tool_choice": {"type": "maybe"}}, "tool_choice")]
    for fields, name in odd:
        answered = said(chatting, **fields)
        assert (answered.status, answered.json["type"]) == (400, "error"), fields
        assert answered.json["error"]["type"] == "invalid_request_error"
        assert answered.json["error"]["message"].startswith(name), answered.raw
    most = said(chatting, max_tokens=1 << 20).json["error"]["message"]
    assert most.startswith("input length and `max_tokens` exceed context limit: "), "by which agents ask for less"
    long = said(chatting, messages=[{"role": "user", "content": "wind " * 3000}]).json["error"]["message"]
    assert long.startswith("prompt is too long: ")
    assert said(chatting, model="other").json["error"]["type"] == "not_found_error"


def test_a_failure_in_a_stream_ends_it(instruct: ServedModel, serve_fake: ServeFake) -> None:
    head = FakeHead()
    server = serve_fake(head, instruct)
    for ask_for, begun, ended in (
        (said, "message_start", "error"),
        (responded, "response.created", "response.failed"),
    ):
        head.outcomes.append("numeric")
        events = named_events(ask_for(server, stream=True))
        assert (events[0]["type"], events[-1]["type"]) == (begun, ended)
    assert chat(server).status == 200


def test_a_token_may_stand_in_a_header_of_its_own(instruct: ServedModel, tmp_path: Any) -> None:
    token, line = new_token("claude", [Scope.INFERENCE])
    append(tmp_path / "tokens", line)
    server = Serving(instruct, tokens=TokenFile(tmp_path / "tokens")).ready(FakeHead(), engine_bounds())
    try:
        body = {"messages": HELLO, "max_tokens": 1}
        assert ask(server, MESSAGES_PATH, body, headers={"x-api-key": token}).status == 200
        refused = ask(server, MESSAGES_PATH, body, headers={"x-api-key": "other"})
        assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")
    finally:
        server.close()
