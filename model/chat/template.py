"""A checkpoint's own chat template, written in jinja, as transformers' `apply_chat_template` uses it."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.chat.conversation import (
    PARAGRAPH,
    ChatMessage,
    Conversation,
    Role,
    checked,
    folded,
    from_json,
    to_json,
    without_tools,
)
from model.chat.protection import Edges, Protection
from model.chat.sandbox import Sandbox
from model.text.tokenizer import Tokenizer

_OPEN_END = "\u2063 "  # ends a message that is to be continued; a template that trims takes the blank away


class Template:
    """Conversations to ids. May be shared between threads."""

    def __init__(self, sources: Mapping[str, str], tokenizer: Tokenizer) -> None:
        """`sources` by name: `default`, and where there is one `tool_use`. ValueError for one that is no template."""
        self._tokenizer, self._texts = tokenizer, tuple(sources.values())
        self._edges = Edges(tokenizer.named.tokens)
        self.source = sources["default"]
        self._plain, self._with_tools = Sandbox(self.source), Sandbox(sources.get("tool_use", self.source))
        self.takes_tools = "tools" in self._with_tools.names
        self.names_calls = any("<tool_call>" in text for text in self._texts)

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
        described = [tool.described() for tool in conversation.tools]
        written = [text for message in messages for text in _texts(message)]
        safe = Protection(self._tokenizer.named, self._edges, [*self._texts, *written, to_json(described)])
        said = [_message(message, safe) for message in messages]
        if conversation.continue_final:
            said[-1]["content"] += _OPEN_END
        tools = [tool | {"function": _function(tool["function"], safe)} for tool in described]
        sandbox = self._with_tools if tools else self._plain
        text = sandbox.render(
            {
                "messages": said,
                "tools": tools or None,
                "documents": None,
                "add_generation_prompt": conversation.generation_prompt and not conversation.continue_final,
                "bos_token": self._tokenizer.name_of(self._tokenizer.bos_id),
                "eos_token": self._tokenizer.name_of(self._tokenizer.eos_id),
                "unk_token": self._tokenizer.name_of(self._tokenizer.unk_id),
            }
        )
        if conversation.continue_final:
            text = _before_open_end(text)
        return self._tokenizer.encode_named(text, safe.restored)


def _texts(message: ChatMessage) -> list[str]:
    """All that its author wrote, escaped characters as themselves."""
    calls = [text for call in message.calls for text in (call.id, call.name, to_json(from_json(call.arguments)))]
    return [message.content, message.call_id, message.name, *calls]


def _message(message: ChatMessage, safe: Protection) -> dict[str, Any]:
    """As templates are given it; its own words (`role`) are no user's."""
    said: dict[str, Any] = {"role": str(message.role), "content": safe.text(message.content)}
    if message.calls:
        said["tool_calls"] = [
            {
                "id": safe.text(call.id),
                "type": "function",
                "function": {"name": safe.text(call.name), "arguments": safe.of(from_json(call.arguments))},
            }
            for call in message.calls
        ]
    if message.role == Role.TOOL:
        said["tool_call_id"] = safe.text(message.call_id)
        said |= {"name": safe.text(message.name)} if message.name else {}
    return said


def _function(about: Mapping[str, Any], safe: Protection) -> dict[str, Any]:
    return {name: safe.of(value) for name, value in about.items()}


def _before_open_end(text: str) -> str:
    before, found, after = text.rpartition(_OPEN_END[0])
    if not found:
        raise ValueError("it leaves the last message out, so that it cannot be continued")
    return before if after.startswith(_OPEN_END[1]) else before.rstrip()
