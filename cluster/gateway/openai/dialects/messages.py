"""Anthropic's messages, for clients that speak nothing else, as a shim over chat completions.

https://docs.anthropic.com/en/api/messages
"""

import json
from collections.abc import Iterator
from typing import Any

from cluster.gateway.errors import Violations
from cluster.gateway.openai.body import Body
from cluster.gateway.openai.dialects.dialect import Dialect, Json, Values, as_chat
from cluster.gateway.openai.requests import Wanted
from cluster.gateway.openai.streams import event

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_STOPS = {"length": "max_tokens", "tool_calls": "tool_use"}
_UNSAID = ("thinking", "redacted_thinking")  # blocks that the model does not read


def _wanted(values: Values, request_id: str) -> Wanted:
    chat = chat_values(values)
    return as_chat(values, chat, request_id)


def chat_values(values: Values) -> Json:
    """The fields of a chat completion that a body of messages makes; ApiError with all that cannot be made into one.
    The last message, if it is the assistant's, is continued.
    """
    body = Body(values, Violations())
    messages = [{"role": "system", "content": text}] if (text := _text(body, "system")) else []
    for message in body.objects("messages"):
        messages += _turn(message)
    chat: Json = {"messages": messages, "max_tokens": body.raw("max_tokens"), "top_k": body.raw("top_k")}
    chat["stop"] = body.raw("stop_sequences")
    if (about := body.object("metadata")) is not None:
        chat["user"] = about.raw("user_id")
    tools = [_tool(tool) for tool in body.objects("tools") if tool.raw("type") in (None, "custom")]
    if tools:
        chat["tools"] = tools
    if (choice := body.object("tool_choice")) is not None:
        chat["parallel_tool_calls"] = not choice.flag("disable_parallel_tool_use")
        kind = choice.text("type")
        named = {"type": "function", "function": {"name": choice.raw("name")}}
        chat["tool_choice"] = named if kind == "tool" else _CHOICES.get(kind, kind)
    if messages and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
    body.found.raise_any()
    return chat


def _text(body: Body, name: str) -> str:
    """A text, or blocks of it."""
    if not isinstance(body.raw(name), list):
        return body.text(name)
    return "".join(block.text("text") for block in body.objects(name) if _is_text(block))


def _is_text(block: Body) -> bool:
    if block.raw("type") == "text":
        return True
    if block.raw("type") not in _UNSAID:
        block.refuse("type", "must be text: the model reads nothing else")
    return False


def _turn(message: Body) -> Iterator[Json]:
    """Answers of tools become messages of their own, before the text that the user puts beside them."""
    role = message.raw("role")
    if not isinstance(message.raw("content"), list):
        yield {"role": role, "content": message.text("content")}
        return
    texts, calls = [], []
    for block in message.objects("content"):
        match block.raw("type"):
            case "tool_use":
                function = {"name": block.raw("name"), "arguments": json.dumps(block.raw("input") or {})}
                calls.append({"id": block.raw("id"), "type": "function", "function": function})
            case "tool_result":
                yield {"role": "tool", "tool_call_id": block.raw("tool_use_id"), "content": _text(block, "content")}
            case _ if _is_text(block):
                texts.append(block.text("text"))
    if texts or calls:
        yield {"role": role, "content": "".join(texts)} | ({"tool_calls": calls} if calls else {})


def _tool(tool: Body) -> Json:
    function = {"name": tool.raw("name"), "description": tool.raw("description")}
    return {"type": "function", "function": function | {"parameters": tool.raw("input_schema")}}


def failure(told: Json) -> Json:
    """OpenAI's object of a failure as Anthropic's clients read it."""
    error = told["error"]
    kind = {"server_error": "api_error"}.get(error["type"], error["type"])
    return {"type": "error", "error": {"type": kind, "message": error["message"]}}


class _Teller:
    """A block of text, then one of each call, is opened when its first part comes, and closed when another's does."""

    def __init__(self, wanted: Wanted) -> None:
        self._begun, self._block, self._call = False, -1, -1
        self._finish: str | None = None
        self._stop: object = None
        self._usage: Json = {}

    def whole(self, completion: Json) -> Json:
        (choice,) = completion["choices"]
        message, content = choice["message"], list[Json]()
        if message["content"]:
            content.append({"type": "text", "text": message["content"]})
        for call in message.get("tool_calls", ()):
            about = {"type": "tool_use", "id": call["id"], "name": call["function"]["name"]}
            content.append(about | {"input": _object(call["function"]["arguments"])})
        usage = _usage(completion["usage"])
        return _message(completion, content, usage) | _stopped(choice["finish_reason"], choice["stop_reason"])

    def chunk(self, chunk: Json) -> str:
        return "".join(event(one, one["type"]) for one in self._events(chunk))

    def failed(self, told: Json) -> str:
        self._finish = None
        return event(failure(told), "error")

    def end(self) -> str:
        if self._finish is None:
            return ""
        about = {"type": "message_delta", "delta": _stopped(self._finish, self._stop), "usage": self._usage}
        return event(about, "message_delta") + event({"type": "message_stop"}, "message_stop")

    def _events(self, chunk: Json) -> Iterator[Json]:
        self._usage = _usage(chunk["usage"])
        if not self._begun:
            self._begun = True
            yield {"type": "message_start", "message": _message(chunk, [], self._usage) | _stopped(None, None)}
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if text := delta.get("content"):
                if self._call >= 0 or self._block < 0:
                    yield from self._open({"type": "text", "text": ""}, call=-1)
                yield self._delta({"type": "text_delta", "text": text})
            for part in delta.get("tool_calls", ()):
                if part["index"] != self._call or "id" in part:
                    about = {"type": "tool_use", "id": part["id"], "name": part["function"]["name"], "input": {}}
                    yield from self._open(about, part["index"])
                if arguments := part["function"]["arguments"]:
                    yield self._delta({"type": "input_json_delta", "partial_json": arguments})
            if choice["finish_reason"]:
                self._finish, self._stop = choice["finish_reason"], choice["stop_reason"]
                yield from self._close()

    def _open(self, block: Json, call: int) -> Iterator[Json]:
        yield from self._close()
        self._block, self._call = self._block + 1, call
        yield {"type": "content_block_start", "index": self._block, "content_block": block}

    def _close(self) -> Iterator[Json]:
        if self._block >= 0:
            yield {"type": "content_block_stop", "index": self._block}

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self._block, "delta": delta}


def _message(about: Json, content: list[Json], usage: Json) -> Json:
    named = {"id": about["id"].replace("chatcmpl-", "msg_"), "type": "message", "role": "assistant"}
    return named | {"model": about["model"], "content": content, "usage": usage}


def _stopped(finish: str | None, stop: object) -> Json:
    """`stop` is what was matched, of which only a text is told."""
    if isinstance(stop, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": None if finish is None else _STOPS.get(finish, "end_turn"), "stop_sequence": None}


def _usage(counts: Json) -> Json:
    cached = counts["prompt_tokens_details"]["cached_tokens"]
    found = {"input_tokens": counts["prompt_tokens"] - cached, "output_tokens": counts["completion_tokens"]}
    return found | {"cache_read_input_tokens": cached, "cache_creation_input_tokens": 0}


def _object(text: str) -> Any:
    """Arguments that ended with the output are no object."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


MESSAGES = Dialect(_wanted, _Teller, failure)
