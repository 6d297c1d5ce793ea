"""Requests in other dialects than OpenAI's chat, and their streams, for tests."""

import json
import re
from collections.abc import Callable
from typing import Any

from cluster.gateway.openai.dialects.dialect import Dialect, Teller
from tests.openai_door import HELLO, Answered, ask
from tests.serving import Serving

ServeFake = Callable[..., Serving]
PLACE = {"type": "object", "properties": {"place": {"enum": ["Ulm", "Rom"]}}, "required": ["place"]}
TAGGED = '<tool_call>\n{"name": "weather", "arguments": {"place": "Ulm"}}\n</tool_call>'
MESSAGES_PATH, RESPONSES_PATH = "/v1/messages", "/v1/responses"


def said(server: Serving, **fields: Any) -> Answered:
    return ask(server, MESSAGES_PATH, {"messages": HELLO, "max_tokens": 200} | fields)


def responded(server: Serving, **fields: Any) -> Answered:
    return ask(server, RESPONSES_PATH, {"input": "hello", "max_output_tokens": 200} | fields)


def named_events(answered: Answered) -> list[Any]:
    """The objects of a stream whose events have names, which are their types."""
    assert answered.headers["content-type"].startswith("text/event-stream")
    found = []
    for text in answered.raw.decode("ascii").split("\n\n")[:-1]:
        name, value = re.fullmatch("event: (.*)\ndata: (.*)", text).groups()  # type: ignore[union-attr]
        found.append(json.loads(value))
        assert found[-1]["type"] == name
    return found


def objects(told: str) -> list[Any]:
    """The objects of a stream's events."""
    return [json.loads(line.removeprefix("data: ")) for line in told.splitlines() if line.startswith("data: ")]


USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}
ABOUT = {"id": "chatcmpl-r", "created": 7, "model": "m"}
BODY: dict[str, Any] = {"messages": HELLO, "stream": True}


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return ABOUT | {"usage": USAGE, "choices": [{"delta": delta, "finish_reason": finish, "stop_reason": None}]}


def streaming(dialect: Dialect) -> Teller:
    return dialect.teller(dialect.read({"input": "a", **BODY}, "r"), ABOUT)
