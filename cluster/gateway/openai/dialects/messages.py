"""Anthropic's messages, for clients that speak nothing else, as a shim over chat completions.

https://docs.anthropic.com/en/api/messages
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.gateway.errors import ApiError, Violations
from cluster.gateway.openai.body import Body
from cluster.gateway.openai.dialects.dialect import Dialect, Json, as_chat
from cluster.gateway.openai.failures import body_of, status_of
from cluster.gateway.openai.requests import Wanted
from cluster.gateway.openai.streams import event

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_FINISHES = {"length": "max_tokens", "tool_calls": "tool_use"}
_THOUGHTS = ("thinking", "redacted_thinking")
_NAMES = {"messages": "messages", "stop": "stop_sequences", "user": "metadata", "response_format": "output_config"}
_IGNORED = ("thinking", "service_tier", "cache_control", "context_management", "container", "inference_geo")
# A block of Claude Code's system prompt that is another one in each request: the prefix cache would never be hit.
_CHANGING = "x-anthropic-billing-header"


def _wanted(values: Mapping[str, Any], request_id: str) -> Wanted:
    body = Body(values, Violations())
    return as_chat(body, chat_of(body), request_id, _NAMES, _IGNORED, told={})


def chat_of(body: Body) -> Json:
    """The fields of a chat completion; violations are noted in the body. The last message, if it is the assistant's and
    calls nothing, is continued.
    """
    messages = [{"role": "system", "content": text}] if (text := _text(body, "system")) else []
    turns = body.objects("messages")
    if not turns:
        body.refuse("messages", "must hold at least one message")
    for message in turns:
        messages += _turn(message)
    chat: Json = {"messages": messages, "max_tokens": body.raw("max_tokens"), "top_k": body.raw("top_k")}
    chat["stop"] = body.raw("stop_sequences")
    if (about := body.object("metadata")) is not None:
        chat["user"] = about.raw("user_id")
    form = config.object("format") if (config := body.object("output_config")) is not None else None
    if form is not None:
        named = {"name": "output", "schema": form.raw("schema")}
        chat["response_format"] = {"type": form.raw("type"), "json_schema": named}
    chat["tools"] = [_tool(tool) for tool in body.objects("tools") if tool.text("type") in ("", "custom")]
    _choose(body, chat)
    if messages and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
    return chat


def _choose(body: Body, chat: Json) -> None:
    if (choice := body.object("tool_choice")) is None:
        return
    chat["parallel_tool_calls"] = not choice.flag("disable_parallel_tool_use")
    kind = choice.text("type")
    if kind == "tool":
        if not (name := choice.text("name")):
            choice.refuse("name", "must be the name of a tool")
        chat["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind in _CHOICES:
        chat["tool_choice"] = _CHOICES[kind]
    else:
        choice.refuse("type", "must be auto, any, tool or none")


def _text(body: Body, name: str) -> str:
    """A text, or blocks of it."""
    if not isinstance(body.raw(name), list):
        return body.text(name)
    texts = [text for block in body.objects(name) if (text := _of_block(block))]
    return "".join(text for text in texts if not text.startswith(_CHANGING))


def _of_block(block: Body) -> str:
    """Its text; none of thoughts, which the model does not read again."""
    if (kind := block.text("type")) == "text":
        return block.text("text")
    if kind not in _THOUGHTS:
        block.refuse("type", "must be text: the model reads nothing else")
    return ""


def _turn(message: Body) -> Iterator[Json]:
    """Answers of tools become messages of their own, before the text that the user puts beside them."""
    role = message.text("role")
    if role not in ("user", "assistant", "system"):
        message.refuse("role", "must be user, assistant or system")
    if not isinstance(message.raw("content"), list):
        yield {"role": role, "content": message.text("content")}
        return
    texts, calls = [], []
    for block in message.objects("content"):
        match block.raw("type"):
            case "tool_use" if role == "assistant":
                given = block.raw("input") if block.object("input") is not None else {}
                function = {"name": block.text("name"), "arguments": json.dumps(given)}
                calls.append({"id": block.text("id"), "type": "function", "function": function})
            case "tool_result" if role == "user":
                yield {"role": "tool", "tool_call_id": block.text("tool_use_id"), "content": _text(block, "content")}
            case _:
                texts.append(_of_block(block))
    if any(texts) or calls:
        yield {"role": role, "content": "".join(texts)} | ({"tool_calls": calls} if calls else {})


def _tool(tool: Body) -> Json:
    function = {"name": tool.raw("name"), "description": tool.raw("description")}
    return {"type": "function", "function": function | {"parameters": tool.raw("input_schema")}}


def failure(error: ApiError) -> Json:
    """Clients know a prompt that is too long by these words alone: they send less, or ask for less."""
    told = body_of(error)["error"]
    kind = {"server_error": "api_error"}.get(told["type"], told["type"])
    text = told["message"]
    if status_of(error) == 413:
        kind = "request_too_large"
    if "contextLength" in error.metadata:
        prompt, most = int(error.metadata["promptTokens"]), int(error.metadata["contextLength"])
        text = f"prompt is too long: {prompt} tokens > {most} maximum"
        if prompt < most:
            text = f"input length and `max_tokens` exceed context limit: {prompt} + {error.metadata['maxTokens']} > "
            text += f"{most}, decrease input length or `max_tokens` and try again"
    return {"type": "error", "error": {"type": kind, "message": text}}


class _Teller:
    """A block of text, or one of a call, is opened when its first part comes, and closed when another's does."""

    def __init__(self, wanted: Wanted, about: Json) -> None:
        self._about = {"id": f"msg_{about['id'].removeprefix('chatcmpl-')}", "type": "message", "role": "assistant"}
        self._about |= {"model": about["model"]}
        self._block, self._open = -1, ""  # the open block's place, and what it is of: "text", or a call's index
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
        ended = _ended(choice["finish_reason"], choice["stop_reason"])
        return self._about | {"content": content, "usage": _usage(completion["usage"])} | ended

    def begin(self, usage: Json) -> str:
        message = self._about | {"content": [], "usage": _usage(usage)} | _ended(None, None)
        return _event({"type": "message_start", "message": message})

    def chunk(self, chunk: Json) -> str:
        return "".join(map(_event, self._events(chunk)))

    def failed(self, error: ApiError) -> str:
        self._finish = None
        return event(failure(error), "error")

    def end(self) -> str:
        if self._finish is None:
            return ""
        about = {"type": "message_delta", "delta": _ended(self._finish, self._stop), "usage": self._usage}
        return _event(about) + _event({"type": "message_stop"})

    def _events(self, chunk: Json) -> Iterator[Json]:
        self._usage = _usage(chunk["usage"])
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if text := delta.get("content"):
                yield from self._switch("text", {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": text})
            for part in delta.get("tool_calls", ()):
                if "id" in part:
                    about = {"type": "tool_use", "id": part["id"], "name": part["function"]["name"], "input": {}}
                    yield from self._switch(str(part["index"]), about)
                if arguments := part["function"]["arguments"]:
                    yield self._delta({"type": "input_json_delta", "partial_json": arguments})
            if choice["finish_reason"]:
                self._finish, self._stop = choice["finish_reason"], choice["stop_reason"]
                yield from self._close()

    def _switch(self, to: str, block: Json) -> Iterator[Json]:
        if self._open == to:
            return
        yield from self._close()
        self._block, self._open = self._block + 1, to
        yield {"type": "content_block_start", "index": self._block, "content_block": block}

    def _close(self) -> Iterator[Json]:
        if self._open:
            yield {"type": "content_block_stop", "index": self._block}

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self._block, "delta": delta}


def _event(value: Json) -> str:
    return event(value, value["type"])


def _ended(finish: str | None, stop: object) -> Json:
    """`stop` is what was matched, of which only a text is told; a call must be answered whatever stopped it."""
    if isinstance(stop, str) and finish == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": None if finish is None else _FINISHES.get(finish, "end_turn"), "stop_sequence": None}


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
