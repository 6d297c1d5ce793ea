"""A checkpoint's own chat template, written in jinja, as transformers' `apply_chat_template` uses it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, meta, nodes

from model.chat.conversation import PARAGRAPH, ChatMessage, Conversation, Role, checked, folded, without_tools
from model.chat.protection import Protection
from model.chat.sandbox import Sandbox
from model.text.tokenizer import Tokenizer

_OPEN_END = "\u2063 "  # marks the end of a message that is to be continued; a template that trims takes the blank away


class Template:
    """Conversations to ids. May be shared between threads."""

    def __init__(self, sources: Mapping[str, str], tokenizer: Tokenizer) -> None:
        """`sources` by name: `default`, and where there is one `tool_use`. ValueError for one that is no template."""
        self._tokenizer = tokenizer
        self.source = sources["default"]
        self._plain, self._with_tools = Sandbox(self.source), Sandbox(sources.get("tool_use", self.source))
        self.takes_tools = "tools" in _names(sources.get("tool_use", self.source))
        self._texts = tuple(sources.values())
        self.names_calls = any("<tool_call>" in text for text in self._texts)
        self._marks = tuple(token.text for token in tokenizer.found_in_text)

    def ids(self, conversation: Conversation) -> list[int]:
        """Names of control tokens in messages and tools stay text. A conversation that the template refuses is tried
        once more with system messages in the first user message, and neighbours of one role joined. ValueError if that
        is refused, too, in the template's words.
        """
        messages = list(conversation.messages)
        if not self.takes_tools:
            messages = without_tools(messages)
        if conversation.continue_final or not messages:
            checked(conversation)
        try:
            return self._ids(messages, conversation)
        except ValueError as error:
            refused = error
        system, turns = folded(messages)
        first = turns[0]
        if system:
            turns[0] = ChatMessage(first.role, PARAGRAPH.join([system, first.content]))
        if turns == messages:
            raise ValueError(f"the model's chat template refuses this conversation: {refused}") from refused
        try:
            return self._ids(turns, conversation)
        except ValueError as error:
            raise ValueError(f"the model's chat template refuses this conversation: {error}") from error

    def _ids(self, messages: Sequence[ChatMessage], conversation: Conversation) -> list[int]:
        tools = [_tool(t.name, t.description, t.parameters) for t in conversation.tools]
        said: list[Any] = [_message(message) for message in messages]
        protection = Protection(self._marks, [*self._texts, json.dumps([said, tools], ensure_ascii=False)])
        said = protection.of(said)
        for message in said:
            message["role"] = protection.restored(message["role"])
        if conversation.continue_final:
            said[-1]["content"] += _OPEN_END
        text = (self._with_tools if tools else self._plain).render(
            self._values(said, protection.of(tools), conversation)
        )
        if conversation.continue_final:
            text = _before_open_end(text)
        ids: list[int] = []
        for part, first in self._tokenizer.parts(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._tokenizer.vocabulary.encode(protection.restored(part), first=first)
        return ids

    def _values(self, messages: list[Any], tools: list[Any], conversation: Conversation) -> dict[str, Any]:
        name = self._tokenizer.name_of
        values: dict[str, Any] = {"messages": messages, "tools": tools or None, "documents": None}
        values |= {"bos_token": name(self._tokenizer.bos_id), "eos_token": name(self._tokenizer.eos_id)}
        return values | {
            "unk_token": name(self._tokenizer.unk_id),
            "add_generation_prompt": not conversation.continue_final,
        }


def _names(source: str) -> set[str]:
    """The names that a template takes from outside."""
    try:
        tree: nodes.Template = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
    except TemplateSyntaxError:  # transformers' own tags
        return {"tools"} if "tools" in source else set()
    return meta.find_undeclared_variables(tree)


def _message(message: ChatMessage) -> dict[str, Any]:
    said: dict[str, Any] = {"role": str(message.role), "content": message.content}
    if message.calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _value(call.arguments)}}
            for call in message.calls
        ]
    if message.role == Role.TOOL:
        said["tool_call_id"] = message.call_id
        said |= {"name": message.name} if message.name else {}
    return said


def _tool(name: str, description: str, parameters: str) -> dict[str, Any]:
    about: dict[str, Any] = {"name": name, "description": description, "parameters": _value(parameters)}
    return {"type": "function", "function": about}


def _value(text: str) -> Any:
    """Of JSON, or the text itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _before_open_end(text: str) -> str:
    before, found, after = text.rpartition(_OPEN_END[0])
    if not found:
        raise ValueError("it leaves the last message out, so that it cannot be continued")
    return before if after.startswith(_OPEN_END[1]) else before.rstrip()
