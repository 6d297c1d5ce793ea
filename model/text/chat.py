r"""Mixtral's v1 chat template: the text of each turn, and the conversations that it can express.

Mixtral-8x7B-Instruct was tuned on it (version 1 of Mistral's instruct formats; `InstructTokenizerV1` of mistral-common
is its public implementation). `[INST]` and `[/INST]` are ordinary text, and every turn is tokenized on its own.

    system "Be terse."  user "Hi"  assistant "Hello."  user "Bye"
    <s> | [INST] Be terse.\n\nHi [/INST] | Hello. | </s> | [INST] Bye [/INST]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_PARAGRAPH = "\n\n"  # between system messages, and between them and the first user message


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation; its text is not trimmed."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch of text that is tokenized on its own; `closed`: an end-of-sequence id follows it."""

    text: str
    closed: bool


def render(messages: Sequence[ChatMessage], *, continue_final_message: bool = False) -> list[Turn]:
    """Lay a conversation out as turns; `continue_final_message` leaves the last one open for the model.

    System messages, from anywhere, are joined by a blank line and put in front of the first user message; only one
    directly after an assistant message is refused. A conversation whose first turn is the assistant's, or that has
    system messages only, gets an empty user message in front. Neighbours of one role are joined by a blank line.
    mistral-common does all this; unlike it, this function refuses two messages of one role with a system message
    between them. ValueError names the message, as in `messages[0]`, and what to change.
    """
    if not messages:
        raise ValueError("The conversation is empty: send at least one user message.")
    turns = _spoken(messages)
    _check_end(messages, continue_final_message)
    if not turns or turns[0].role == Role.ASSISTANT:
        turns.insert(0, ChatMessage(Role.USER, ""))

    system = [message.content for message in messages if message.role == Role.SYSTEM and message.content]
    turns[0] = ChatMessage(Role.USER, _PARAGRAPH.join([*system, turns[0].content]))
    rendered = [
        Turn(f"[INST] {m.content} [/INST]", closed=False) if m.role == Role.USER else Turn(m.content, closed=True)
        for m in turns
    ]
    if continue_final_message:
        rendered[-1] = Turn(rendered[-1].text, closed=False)
    return rendered


def _spoken(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The user and assistant messages, with neighbours of one role joined; ValueError for a wrong order."""
    spoken: list[ChatMessage] = []
    previous: Role | None = None
    for index, message in enumerate(messages):
        role, at = message.role, f"messages[{index}]"
        if role == Role.SYSTEM and previous == Role.ASSISTANT:
            raise ValueError(
                f"{at} is a system message directly after an assistant message: "
                "move it to the front of the conversation."
            )
        if role == Role.ASSISTANT and not message.content:
            raise ValueError(f"{at} is an empty assistant message: give it content or leave it out.")
        if role != Role.SYSTEM and role != previous and spoken and spoken[-1].role == role:
            raise ValueError(
                f"{at} is a second {role} message, with only a system message between them: "
                "move the system message to the front of the conversation."
            )
        if role != Role.SYSTEM:
            joined = [spoken.pop().content] if role == previous else []
            spoken.append(ChatMessage(role, _PARAGRAPH.join([*joined, message.content])))
        previous = role
    return spoken


def _check_end(messages: Sequence[ChatMessage], continue_final_message: bool) -> None:
    """Refuse a conversation after which the model has no turn."""
    last = len(messages) - 1
    final_role = messages[last].role
    if continue_final_message and final_role != Role.ASSISTANT:
        raise ValueError(
            f"messages[{last}] is a {final_role} message, and only an assistant message can be continued: "
            "unset continue_final_message, or end with the assistant message to continue."
        )
    if not continue_final_message and final_role == Role.ASSISTANT:
        raise ValueError(
            f"messages[{last}], the last, is an assistant message: end with a user message, "
            "or set continue_final_message to let the model go on with it."
        )
    if last == 0 and final_role == Role.ASSISTANT:
        raise ValueError("messages[0] is an assistant message and the only one: put a user message in front of it.")
