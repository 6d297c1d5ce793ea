"""Calls of tools as OpenAI's objects."""

from collections.abc import Sequence
from typing import Any

from model.chat.calls import CallPart


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
