"""OpenAI's responses, for clients that speak nothing else, as a shim over chat completions that remembers nothing.

https://platform.openai.com/docs/api-reference/responses
"""

from collections.abc import Iterator
from typing import Any

from cluster.gateway.errors import Violations
from cluster.gateway.openai.body import Body
from cluster.gateway.openai.dialects.dialect import Dialect, Json, Values, as_chat
from cluster.gateway.openai.requests import Wanted
from cluster.gateway.openai.streams import event

_TEXTS = ("input_text", "output_text", "text", "refusal")
_ECHOED = ("instructions", "max_output_tokens", "metadata", "temperature", "top_p", "text", "reasoning")


def _wanted(values: Values, request_id: str) -> Wanted:
    """Tools and items of kinds that the model cannot use are skipped, because clients send their own unasked."""
    body = Body(values, Violations())
    for name in ("previous_response_id", "conversation", "background"):
        if body.raw(name):
            body.refuse(name, "is not offered: nothing is kept between requests; send the whole conversation")
    messages: list[Json] = [{"role": "system", "content": text}] if (text := body.text("instructions")) else []
    if isinstance(body.raw("input"), list):
        for item in body.objects("input"):
            _add(item, messages)
    else:
        messages.append({"role": "user", "content": body.text("input")})
    if not any(message["role"] not in ("system", "developer") for message in messages):
        messages.append({"role": "user", "content": ""})  # what a client sends to see whether somebody is there
    chat: Json = {"messages": messages, "max_tokens": body.raw("max_output_tokens"), "user": body.raw("user")}
    chat["parallel_tool_calls"] = body.raw("parallel_tool_calls")
    tools = [_tool(tool) for tool in body.objects("tools") if tool.raw("type") == "function"]
    if tools:
        chat |= {"tools": tools, "tool_choice": _choice(body.raw("tool_choice"))}
    form = text_of.object("format") if (text_of := body.object("text")) else None
    if form is not None:
        named = {"name": form.raw("name"), "schema": form.raw("schema")}
        chat["response_format"] = {"type": form.raw("type")} | ({"json_schema": named} if named["schema"] else {})
    body.found.raise_any()
    return as_chat(values, chat, request_id)


def _add(item: Body, messages: list[Json]) -> None:
    """Calls belong to the assistant's message before them."""
    match item.raw("type"):
        case None | "message":
            messages.append({"role": item.raw("role"), "content": _text(item, "content")})
        case "function_call":
            function = {"name": item.raw("name"), "arguments": item.raw("arguments")}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            call = {"id": item.raw("call_id"), "type": "function", "function": function}
            messages[-1].setdefault("tool_calls", []).append(call)
        case "function_call_output":
            answer = {"role": "tool", "tool_call_id": item.raw("call_id")}
            messages.append(answer | {"content": _text(item, "output")})


def _text(item: Body, name: str) -> str:
    if not isinstance(item.raw(name), list):
        return item.text(name)
    texts = []
    for part in item.objects(name):
        if part.raw("type") in _TEXTS:
            texts.append(part.text("refusal" if part.raw("type") == "refusal" else "text"))
        else:
            part.refuse("type", "must be text: the model reads nothing else")
    return "".join(texts)


def _tool(tool: Body) -> Json:
    function = {"name": tool.raw("name"), "description": tool.raw("description")}
    return {"type": "function", "function": function | {"parameters": tool.raw("parameters")}}


def _choice(choice: Any) -> Any:
    """A function is named within an object in a chat; another kind of tool is none that may be demanded."""
    if not isinstance(choice, dict):
        return choice
    return {"type": "function", "function": {"name": choice.get("name")}} if "name" in choice else "auto"


class _Teller:
    def __init__(self, wanted: Wanted) -> None:
        self._given, self._about = wanted.given, Json()
        self._sent, self._finish = 0, ""
        self._items: list[Json] = []
        self._failed = False

    def whole(self, completion: Json) -> Json:
        (choice,) = completion["choices"]
        message, self._about = choice["message"], completion
        if message["content"] or not message.get("tool_calls"):
            self._items.append(self._message(message["content"] or ""))
        self._items += [self._call(c["id"], **c["function"]) for c in message.get("tool_calls", ())]
        return self._response(choice["finish_reason"])

    def chunk(self, chunk: Json) -> str:
        return "".join(self._numbered(one) for one in self._events(chunk))

    def failed(self, told: Json) -> str:
        self._failed, error = True, told["error"]
        if not self._about:
            return self._numbered(error | {"type": "error"})
        response = self._response("") | {"status": "failed", "error": error}
        return self._numbered({"type": "response.failed", "response": response})

    def end(self) -> str:
        if self._failed or not self._finish:
            return ""
        response = self._response(self._finish)
        return self._numbered({"type": f"response.{response['status']}", "response": response})

    def _numbered(self, one: Json) -> str:
        self._sent += 1
        return event(one | {"sequence_number": self._sent - 1}, one["type"])

    def _events(self, chunk: Json) -> Iterator[Json]:
        if not self._about:
            self._about = chunk
            for kind in ("created", "in_progress"):
                yield {"type": f"response.{kind}", "response": self._response("") | {"usage": None}}
        self._about = chunk
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
                yield from self._close()

    def _open(self, item: Json) -> Iterator[Json]:
        self._items.append(item)
        begun = item | {"status": "in_progress"}
        if item["type"] == "message":
            yield self._added(begun | {"content": []})
            yield self._at("content_part.added", {"content_index": 0, "part": dict(item["content"][0])})
        else:
            yield self._added(begun)

    def _added(self, item: Json) -> Json:
        return {"type": "response.output_item.added", "output_index": len(self._items) - 1, "item": item}

    def _close(self) -> Iterator[Json]:
        """The last item, told whole."""
        if not self._items:
            return
        item = self._items[-1]
        if item["type"] == "message":
            part = item["content"][0]
            yield self._at("output_text.done", {"content_index": 0, "text": part["text"], "logprobs": []})
            yield self._at("content_part.done", {"content_index": 0, "part": part})
        else:
            yield self._at("function_call_arguments.done", {"name": item["name"], "arguments": item["arguments"]})
        yield {"type": "response.output_item.done", "output_index": len(self._items) - 1, "item": item}

    def _at(self, kind: str, about: Json) -> Json:
        place = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}
        return {"type": f"response.{kind}"} | place | about

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._about['id'].removeprefix('chatcmpl-')}_{len(self._items)}"

    def _message(self, text: str) -> Json:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        about = {"id": self._id("msg"), "type": "message", "status": "completed", "role": "assistant"}
        return about | {"content": content}

    def _call(self, call_id: str, name: str, arguments: str) -> Json:
        about = {"id": self._id("fc"), "type": "function_call", "status": "completed", "call_id": call_id}
        return about | {"name": name, "arguments": arguments}

    def _response(self, finish: str) -> Json:
        """So far: without `finish` it goes on."""
        cut = finish == "length"
        about: Json = {"id": f"resp_{self._about.get('id', '').removeprefix('chatcmpl-')}", "object": "response"}
        about |= {"created_at": self._about.get("created", 0), "model": self._about.get("model", "")}
        about |= {"status": "incomplete" if cut else "completed" if finish else "in_progress", "error": None}
        about |= {"incomplete_details": {"reason": "max_output_tokens"} if cut else None}
        about |= {"output": self._items, "usage": _usage(self._about["usage"]) if self._about else None}
        about |= {"previous_response_id": None, "store": False, "truncation": "disabled"}
        about |= {"tools": self._given.get("tools") or [], "tool_choice": self._given.get("tool_choice") or "auto"}
        about |= {"parallel_tool_calls": self._given.get("parallel_tool_calls") is not False}
        return about | {name: self._given.get(name) for name in _ECHOED}


def _usage(counts: Json) -> Json:
    cached = counts["prompt_tokens_details"]
    found = {"input_tokens": counts["prompt_tokens"], "input_tokens_details": cached}
    found |= {"output_tokens": counts["completion_tokens"], "output_tokens_details": {"reasoning_tokens": 0}}
    return found | {"total_tokens": counts["total_tokens"]}


RESPONSES = Dialect(_wanted, _Teller)
