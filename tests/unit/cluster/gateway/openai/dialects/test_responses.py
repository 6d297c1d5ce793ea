"""OpenAI's responses (F28 of docs/clients.md)."""

import json
from typing import Any

import pytest

from cluster.gateway.errors import ApiError, ErrorKind
from cluster.gateway.openai.dialects.responses import RESPONSES
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.dialects import (
    ABOUT,
    PLACE,
    USAGE,
    chunk,
    named_events,
    objects,
    responded,
    streaming,
)
from tests.openai_door import chat
from tests.serving import Serving

TOOLS: Any = [{"type": "function", "name": "weather", "parameters": PLACE}, {"type": "web_search"}]


def test_a_text_is_that_of_a_chat(looking: Serving) -> None:
    plain = chat(looking, max_tokens=4).json
    answer = responded(looking, max_output_tokens=4).json
    (message,) = answer["output"]
    assert message["content"][0]["text"] == plain["choices"][0]["message"]["content"]
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["usage"]["total_tokens"] == plain["usage"]["total_tokens"]


def test_a_call_is_told_whole_and_in_parts(looking: Serving) -> None:
    answer = responded(looking, tools=TOOLS).json
    message, call = answer["output"]
    assert (message["content"][0]["text"].strip(), answer["status"]) == ("I look.", "completed")
    assert (call["type"], call["name"], json.loads(call["arguments"])) == (
        "function_call",
        "weather",
        {"place": "Ulm"},
    )
    events = named_events(responded(looking, tools=TOOLS, stream=True))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert (kinds[:2], kinds[-1]) == (["response.created", "response.in_progress"], "response.completed")
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    last = events[-1]["response"]
    assert [item["type"] for item in last["output"]] == ["message", "function_call"]
    deltas = {
        kind: "".join(e["delta"] for e in events if e["type"].endswith(kind))
        for kind in ("text.delta", "arguments.delta")
    }
    assert deltas == {"text.delta": last["output"][0]["content"][0]["text"], "arguments.delta": call["arguments"]}
    assert last["usage"]["output_tokens"] == answer["usage"]["output_tokens"]


def test_a_stream_that_fails_on_its_way_keeps_what_had_come() -> None:
    teller = streaming(RESPONSES)
    teller.begin(USAGE)
    assert "north" in teller.chunk(chunk({"content": "north"}))
    failed = json.loads(teller.failed(ApiError(ErrorKind.INTERNAL, "NUMERIC_FAULT", "lost")).partition("data: ")[2])
    response = failed["response"]
    assert (response["status"], response["error"]) == ("failed", {"code": "numeric_fault", "message": "lost"})
    assert (response["output"][0]["content"][0]["text"], response["output"][0]["status"]) == ("north", "incomplete")
    assert teller.end() == ""


def test_a_call_that_was_cut_off_is_not_called_complete() -> None:
    """Agents take calls from `output_item.done`."""
    begun = {"index": 0, "id": "c", "function": {"name": "weather", "arguments": '{"pla'}}
    told = streaming(RESPONSES).chunk(chunk({"tool_calls": [begun]}, "length"))
    (done,) = [value for value in objects(told) if value["type"] == "response.output_item.done"]
    assert done["item"]["status"] == "incomplete"


def test_items_of_a_whole_answer_have_ids_of_their_own() -> None:
    calls = [{"id": f"c{i}", "function": {"name": "weather", "arguments": "{}"}} for i in range(3)]
    choice = {
        "message": {"content": "So.", "tool_calls": calls},
        "finish_reason": "tool_calls",
        "stop_reason": None,
    }
    answer = streaming(RESPONSES).whole(ABOUT | {"choices": [choice], "usage": USAGE})
    assert len({item["id"] for item in answer["output"]}) == 4


def test_items_become_a_conversation() -> None:
    items: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "input_text", "text": "Rain?"}]}]
    items += [{"type": "reasoning", "summary": []}, {"type": "nosuch"}]
    items += [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}]
    for i in "12":
        items += [{"type": "function_call", "call_id": f"c{i}", "name": "weather", "arguments": "{}"}]
    items += [{"type": "function_call_output", "call_id": "c1", "output": "no"}]
    wanted = RESPONSES.read({"instructions": "Be brief.", "input": items, "tools": TOOLS}, "r")
    chat = wanted.requests[0].prompt.chat
    assert [message.content for message in chat.messages] == ["Be brief.", "Rain?", "I look.", "no"]
    assert [call.id for call in chat.messages[2].tool_calls] == ["c1", "c2"]
    assert [tool.name for tool in chat.tools] == ["weather"], "kinds that cannot be called are skipped"


def test_an_answer_keeps_to_a_schema() -> None:
    form = {"type": "json_schema", "name": "x", "schema": PLACE, "strict": True}
    wanted = RESPONSES.read({"input": "a", "text": {"format": form}}, "r")
    assert json.loads(wanted.requests[0].constraint.json_schema) == PLACE


@pytest.mark.parametrize("given", ["", []])
def test_a_look_whether_somebody_is_there_is_answered(given: Any, chatting: Serving) -> None:
    assert responded(chatting, input=given, max_output_tokens=1).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "m"}]}, "input"),
        ({"input": [{"role": "wizard", "content": "a"}]}, "input"),
        ({"input": 7}, "input"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"text": {"format": {"type": "nosuch"}}}, "text"),
        ({"metadata": {"x": float("inf")}}, "metadata"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": "required", "tools": [{"type": "web_search"}]}, "tool_choice"),
    ],
)
def test_a_wrong_field_is_named_as_the_client_knows_it(fields: dict[str, Any], param: str, looking: Serving) -> None:
    answered = responded(looking, **fields)
    assert (answered.status, answered.error["param"].partition("[")[0].partition(".")[0]) == (400, param)


def test_only_allowed_tools_may_be_called() -> None:
    tools = [*TOOLS, {"type": "function", "name": "clock"}]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "clock"}]}
    chat = RESPONSES.read({"input": "a", "tools": tools, "tool_choice": allowed}, "r").requests[0].prompt.chat
    assert ([tool.name for tool in chat.tools], chat.tool_choice) == (["clock"], pb.TOOL_CHOICE_REQUIRED)
