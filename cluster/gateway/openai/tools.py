"""Tools of a request, and their calls in an answer, as OpenAI's objects."""

import json
from collections.abc import Sequence
from typing import Any

from cluster.gateway.openai.body import Body
from model.chat.calls import CallPart
from protos.eightwinds.v1 import inference_pb2 as pb

_CHOICES = {"auto": pb.TOOL_CHOICE_AUTO, "none": pb.TOOL_CHOICE_NONE, "required": pb.TOOL_CHOICE_REQUIRED}


def write_tools(body: Body, chat: pb.Chat) -> None:
    """Write a body's tools into `chat`, and whether they are to be called; none of them if they are not."""
    if body.raw("functions"):
        body.refuse("functions", "is not offered; use tools")
    choice = body.raw("tool_choice")
    if choice == "none":
        return
    for tool in body.objects("tools"):
        if tool.raw("type") not in (None, "function"):
            tool.refuse("type", "must be function: the model calls nothing else")
            continue
        if (function := tool.object("function")) is None:
            tool.refuse("function", "must be an object with a name")
            continue
        parameters = function.raw("parameters")
        chat.tools.add(
            name=function.text("name"),
            description=function.text("description"),
            parameters="" if parameters is None else json.dumps(parameters, ensure_ascii=False),
        )
    chat.single_tool_call = not body.flag("parallel_tool_calls", True)
    if isinstance(choice, str) and choice in _CHOICES:
        chat.tool_choice = _CHOICES[choice]
    elif choice is not None:
        given = body.object("tool_choice")
        function = given.object("function") if given else None
        if function is None:
            body.refuse("tool_choice", 'must be "none", "auto", "required" or a function of the tools')
        else:
            chat.tool_choice, chat.tool_name = pb.TOOL_CHOICE_REQUIRED, function.text("name")


def call_fragment(part: CallPart) -> dict[str, Any]:
    """Of a stream: id, type and name come once, because clients join what they are told again."""
    if not part.id:
        return {"index": part.index, "function": {"arguments": part.arguments}}
    function = {"name": part.name, "arguments": part.arguments}
    return {"index": part.index, "id": part.id, "type": "function", "function": function}


def whole_calls(parts: Sequence[CallPart]) -> list[dict[str, Any]]:
    """Of a whole answer, made of all parts of an output."""
    calls: dict[int, dict[str, Any]] = {}
    for part in parts:
        if part.id:
            function = {"name": part.name, "arguments": ""}
            calls[part.index] = {"id": part.id, "type": "function", "function": function}
        calls[part.index]["function"]["arguments"] += part.arguments
    return list(calls.values())
