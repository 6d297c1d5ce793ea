"""A conversation, whatever template lays it out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

PARAGRAPH = "\n\n"  # between system messages, between them and a user's text, and between neighbours of one role


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by the model; `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON schema of its arguments, as text."""

    name: str
    description: str
    parameters: str

    def described(self) -> dict[str, Any]:
        """As templates are given it, in OpenAI's form."""
        about = {"name": self.name, "description": self.description, "parameters": from_json(self.parameters)}
        return {"type": "function", "function": about}


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message; its text is not trimmed. `calls` are an assistant's; `call_id` is the call that a tool answers,
    `name` the tool's.
    """

    role: Role
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """`continue_final` leaves the last message, an assistant's, open for the model. Without `generation_prompt` nothing
    opens a turn of the assistant behind the last message, which may then be the assistant's.
    """

    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...] = ()
    continue_final: bool = False
    generation_prompt: bool = True


def from_json(text: str) -> Any:
    """The value of a JSON text, or the text itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def checked(conversation: Conversation) -> Conversation:
    """The same; ValueError, naming the message, for one after which the model has no turn."""
    messages = conversation.messages
    if not messages:
        raise ValueError("The conversation is empty: send at least one user message.")
    at, final_role = f"messages[{len(messages) - 1}]", messages[-1].role
    if conversation.continue_final and final_role != Role.ASSISTANT:
        raise ValueError(
            f"{at} is a {final_role} message, and only an assistant message can be continued: "
            "unset continue_final_message, or end with the assistant message to continue."
        )
    if conversation.continue_final and messages[-1].calls:
        raise ValueError(f"{at} calls tools, and cannot be continued: end with the tools' answers.")
    opens = conversation.generation_prompt and not conversation.continue_final
    if opens and final_role == Role.ASSISTANT:
        raise ValueError(
            f"{at}, the last, is an assistant message: end with a user message, "
            "or set continue_final_message to let the model go on with it."
        )
    return conversation


def folded(messages: Sequence[ChatMessage]) -> tuple[str, list[ChatMessage]]:
    """The text of all system messages, and the others as turns that alternate: neighbours of one role become one, as
    mistral-common has it. Agents put system messages anywhere, and leave an assistant's message empty: these are left
    out. The first turn is a user's, if need be an empty one.
    """
    system = [message.content for message in messages if message.role == Role.SYSTEM and message.content]
    turns: list[ChatMessage] = []
    for message in messages:
        if message.role == Role.SYSTEM or (
            message.role == Role.ASSISTANT and not message.content and not message.calls
        ):
            continue
        if turns and message.role == turns[-1].role != Role.TOOL:
            before = turns.pop()
            texts = [text for text in (before.content, message.content) if text or message.role == Role.USER]
            message = replace(message, content=PARAGRAPH.join(texts), calls=(*before.calls, *message.calls))
        turns.append(message)
    if not turns or turns[0].role != Role.USER:
        turns.insert(0, ChatMessage(Role.USER, ""))
    return PARAGRAPH.join(system), turns


def without_tools(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """For templates that have no place for tools: what a tool answered is said by the user, and calls are left out."""
    return [
        replace(message, role=Role.USER if message.role == Role.TOOL else message.role, calls=(), call_id="")
        for message in messages
    ]
