"""OpenAI's responses, for clients that speak nothing else, as a shim over chat completions that remembers nothing.

https://platform.openai.com/docs/api-reference/responses
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.gateway.errors import ApiError, Violations
from cluster.gateway.openai.body import Body
from cluster.gateway.openai.dialects.dialect import Dialect, Json, as_chat
from cluster.gateway.openai.failures import body_of
from cluster.gateway.openai.requests import Wanted
from cluster.gateway.openai.streams import event

_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_NAMES = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format"}
_IGNORED = ("include", "store", "truncation", "reasoning", "service_tier", "prompt_cache_key", "safety_identifier")
_KEPT = ("previous_response_id", "conversation", "prompt")  # these would have to be kept here


def _wanted(values: Mapping[str, Any], request_id: str) -> Wanted:
    body = Body(values, Violations())
    for name in _KEPT:
        if name in body:
            body.refuse(name, "is not offered: nothing is kept between requests; send the whole conversation")
    if body.flag("background"):
        body.refuse("background", "is not offered; stream instead")
    chat: Json = {"messages": _messages(body), "max_tokens": body.raw("max_output_tokens"), "user": body.raw("user")}
    chat["parallel_tool_calls"] = body.flag("parallel_tool_calls", True)
    chat["tools"], chat["tool_choice"] = _tools(body)
    form = about.object("format") if (about := body.object("text")) is not None else None
    if form is not None:
        named = {"name": form.raw("name"), "schema": form.raw("schema")}
        chat["response_format"] = {"type": form.raw("type"), "json_schema": named if "schema" in form else None}
    told = {"temperature": body.number("temperature"), "top_p": body.number("top_p"), "metadata": _metadata(body)}
    told |= {"max_output_tokens": body.integer("max_output_tokens"), "parallel_tool_calls": chat["parallel_tool_calls"]}
    return as_chat(body, chat, request_id, _NAMES, _IGNORED, told)


def _messages(body: Body) -> list[Json]:
    messages: list[Json] = [{"role": "system", "content": text}] if (text := body.text("instructions")) else []
    if isinstance(body.raw("input"), list):
        for item in body.objects("input"):
            _add(item, messages)
    elif text := body.text("input"):
        messages.append({"role": "user", "content": text})
    elif "input" not in body:
        body.refuse("input", "must be a text, or a list of items")
    if not any(message["role"] not in ("system", "developer") for message in messages):
        messages.append({"role": "user", "content": ""})  # a client sends nothing to see whether somebody is there
    return messages


def _add(item: Body, messages: list[Json]) -> None:
    """Calls belong to the assistant's message before them. Items of other kinds are a provider's own, and skipped."""
    match item.text("type"):
        case "" | "message":
            messages.append({"role": item.text("role"), "content": _text(item, "content")})
        case "function_call":
            function = {"name": item.text("name"), "arguments": item.text("arguments")}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            call = {"id": item.text("call_id"), "type": "function", "function": function}
            messages[-1].setdefault("tool_calls", []).append(call)
        case "function_call_output":
            answer = {"role": "tool", "tool_call_id": item.text("call_id")}
            messages.append(answer | {"content": _text(item, "output")})
        case "item_reference":
            item.refuse("type", "is not offered: nothing is kept between requests; send the item itself")


def _text(item: Body, name: str) -> str:
    if not isinstance(item.raw(name), list):
        return item.text(name)
    texts = []
    for part in item.objects(name):
        if (kind := part.text("type")) in _TEXTS:
            texts.append(part.text(_TEXTS[kind]))
        else:
            part.refuse("type", "must be text: the model reads nothing else")
    return "".join(texts)


def _tools(body: Body) -> tuple[list[Json], Any]:
    """Functions to call, and how they are chosen, as a chat has it. Tools of other kinds are a provider's own:
    clients offer them unasked, but must not demand one.
    """
    tools = list[Json]()
    for tool in body.objects("tools"):
        if tool.text("type") == "function":
            function = {name: tool.raw(name) for name in ("name", "description", "parameters")}
            tools.append({"type": "function", "function": function})
    choice = body.raw("tool_choice")
    if not isinstance(choice, dict):
        return tools, choice
    given = Body(choice, body.found, "tool_choice.")
    match given.text("type"):
        case "function" if name := given.text("name"):
            return tools, {"type": "function", "function": {"name": name}}
        case "allowed_tools":
            allowed = {tool.text("name") for tool in given.objects("tools")}
            return [tool for tool in tools if tool["function"]["name"] in allowed], given.text("mode") or "auto"
    given.refuse("type", "must be function, with a name, or allowed_tools: the model calls nothing else")
    return tools, None


def _metadata(body: Body) -> Json:
    about = body.raw("metadata") or {}
    short = isinstance(about, dict) and all(isinstance(v, str) and len(v) <= 512 for v in about.values())
    if not short or len(about) > 16 or any(len(name) > 64 for name in about):
        body.refuse("metadata", "must be an object of at most 16 texts of up to 512 characters")
        return {}
    return dict(about)


class _Teller:
    """An item, a message or a call, is opened when its first part comes, and closed when another's does. Tools and
    instructions are not told again, because they may be long.
    """

    def __init__(self, wanted: Wanted, about: Json) -> None:
        self._told, self._about = wanted.told, about
        self._id = about["id"].removeprefix("chatcmpl-")
        self._sent, self._finish = 0, ""
        self._items: list[Json] = []
        self._usage: Json | None = None

    def whole(self, completion: Json) -> Json:
        (choice,) = completion["choices"]
        message, self._finish = choice["message"], choice["finish_reason"]
        self._usage = _usage(completion["usage"])
        if message["content"] or not message.get("tool_calls"):
            self._items.append(self._message(message["content"] or ""))
        for call in message.get("tool_calls", ()):
            self._items.append(self._call(call["id"], **call["function"]))
        self._items[-1]["status"] = self._status()
        return self._response()

    def begin(self, usage: Json) -> str:
        kinds = ("response.created", "response.in_progress")
        return "".join(self._event({"type": kind, "response": self._response()}) for kind in kinds)

    def chunk(self, chunk: Json) -> str:
        return "".join(map(self._event, self._events(chunk)))

    def failed(self, error: ApiError) -> str:
        self._finish, told = "", body_of(error)["error"]
        failure = {"code": told["code"], "message": told["message"]}
        if self._items:
            self._items[-1]["status"] = "incomplete"
        response = self._response() | {"status": "failed", "error": failure}
        return self._event({"type": "response.failed", "response": response})

    def end(self) -> str:
        if not self._finish:
            return ""
        return self._event({"type": f"response.{self._status()}", "response": self._response()})

    def _event(self, value: Json) -> str:
        self._sent += 1
        return event(value | {"sequence_number": self._sent - 1}, value["type"])

    def _events(self, chunk: Json) -> Iterator[Json]:
        self._usage = _usage(chunk["usage"])
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if text := delta.get("content"):
                if not self._items or self._items[-1]["type"] != "message":
                    yield from self._close()
                    yield from self._open(self._message(""))
                self._items[-1]["content"][0]["text"] += text
                yield self._at("output_text.delta", {"content_index": 0, "delta": text, "logprobs": []})
            for part in delta.get("tool_calls", ()):
                if "id" in part:
                    yield from self._close()
                    yield from self._open(self._call(part["id"], part["function"]["name"], ""))
                if arguments := part["function"]["arguments"]:
                    self._items[-1]["arguments"] += arguments
                    yield self._at("function_call_arguments.delta", {"delta": arguments})
            if choice["finish_reason"]:
                self._finish = choice["finish_reason"]
                if not self._items:
                    yield from self._open(self._message(""))
                yield from self._close(self._status())

    def _open(self, item: Json) -> Iterator[Json]:
        self._items.append(item)
        begun = item | {"status": "in_progress"}
        if item["type"] == "message":
            yield self._item("added", begun | {"content": []})
            yield self._at("content_part.added", {"content_index": 0, "part": dict(item["content"][0])})
        else:
            yield self._item("added", begun)

    def _close(self, status: str = "completed") -> Iterator[Json]:
        """The last item, told whole."""
        if not self._items:
            return
        item = self._items[-1]
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            yield self._at("output_text.done", {"content_index": 0, "text": part["text"], "logprobs": []})
            yield self._at("content_part.done", {"content_index": 0, "part": part})
        else:
            yield self._at("function_call_arguments.done", {"name": item["name"], "arguments": item["arguments"]})
        yield self._item("done", item)

    def _item(self, what: str, item: Json) -> Json:
        return {"type": f"response.output_item.{what}", "output_index": len(self._items) - 1, "item": item}

    def _at(self, kind: str, about: Json) -> Json:
        place = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}
        return {"type": f"response.{kind}"} | place | about

    def _message(self, text: str) -> Json:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        about = {"id": f"msg_{self._id}_{len(self._items)}", "type": "message", "status": "completed"}
        return about | {"role": "assistant", "content": content}

    def _call(self, call_id: str, name: str, arguments: str) -> Json:
        about = {"id": f"fc_{self._id}_{len(self._items)}", "type": "function_call", "status": "completed"}
        return about | {"call_id": call_id, "name": name, "arguments": arguments}

    def _status(self) -> str:
        return "incomplete" if self._finish == "length" else "completed" if self._finish else "in_progress"

    def _response(self) -> Json:
        """So far."""
        about: Json = {"id": f"resp_{self._id}", "object": "response", "created_at": self._about["created"]}
        about |= {"model": self._about["model"], "status": self._status(), "error": None, "instructions": None}
        cut = self._finish == "length"
        about |= {"incomplete_details": {"reason": "max_output_tokens"} if cut else None}
        about |= {"output": list(self._items), "usage": self._usage, "tools": [], "tool_choice": "auto"}
        return about | {"previous_response_id": None, "store": False, "truncation": "disabled"} | dict(self._told)


def _usage(counts: Json) -> Json:
    cached = counts["prompt_tokens_details"] | {"cache_write_tokens": 0}
    found = {"input_tokens": counts["prompt_tokens"], "input_tokens_details": cached}
    found |= {"output_tokens": counts["completion_tokens"], "output_tokens_details": {"reasoning_tokens": 0}}
    return found | {"total_tokens": counts["total_tokens"]}


RESPONSES = Dialect(_wanted, _Teller)
