r"""Mixtral's v1 chat template: the text of each turn, and the conversations that it can express.

The template is the one that Mixtral-8x7B-Instruct was tuned on (version 1 of Mistral's instruct formats;
its public implementation is `InstructTokenizerV1` of mistral-common). `[INST]` and `[/INST]` are ordinary
text in it, and every turn is tokenized on its own: `model.text.tokenizer` turns the turns below into ids.

    system "Be terse."  user "Hi"  assistant "Hello."  user "Bye"
    <s> | [INST] Be terse.\n\nHi [/INST] | Hello. | </s> | [INST] Bye [/INST]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_PARAGRAPH = "\n\n"  # between system messages, and between them and the first user message


class Role(StrEnum):
    """The speaker of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation: the speaker, and the text, which is not trimmed."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        """Refuse a plain string as role: it would equal a `Role`, but not be identical (`is`) to one."""
        assert isinstance(self.role, Role), f"the role {self.role!r} must be a Role"


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch of text that is tokenized on its own; `closed`: an end-of-sequence id follows it."""

    text: str
    closed: bool


def render(messages: Sequence[ChatMessage], *, continue_final_message: bool = False) -> list[Turn]:
    """Lay a conversation out as turns; `continue_final_message` leaves the last one open for the model.

    System messages are not turns. The non-empty ones, from anywhere, are joined by a blank line and put in front
    of the first user message; only a system message directly after an assistant message is refused. A conversation
    whose first turn is the assistant's, or that has system messages only, gets an empty user message in front.
    Neighbours of one role are joined by a blank line. mistral-common does all this; unlike it, this function refuses
    two messages of one role with a system message between them.

    Errors: `ValueError`, naming the message by its index as in `messages[0]`, and what to change.
    """
    if not messages:
        raise ValueError("The conversation is empty: send at least one user message.")
    turns = _spoken(messages)
    _check_end(messages, continue_final_message)
    if not turns or turns[0].role is Role.ASSISTANT:
        turns.insert(0, ChatMessage(Role.USER, ""))

    system = [message.content for message in messages if message.role is Role.SYSTEM and message.content]
    turns[0] = ChatMessage(Role.USER, _PARAGRAPH.join([*system, turns[0].content]))
    rendered = [_turn(message) for message in turns]
    if continue_final_message:
        rendered[-1] = Turn(rendered[-1].text, closed=False)
    return rendered


def _turn(message: ChatMessage) -> Turn:
    if message.role is Role.USER:
        return Turn(f"[INST] {message.content} [/INST]", closed=False)
    return Turn(message.content, closed=True)


def _spoken(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The user and assistant messages, with neighbours of one role joined; ValueError for a wrong order."""
    spoken: list[ChatMessage] = []
    previous: Role | None = None
    for index, message in enumerate(messages):
        if message.role is Role.SYSTEM:
            if previous is Role.ASSISTANT:
                raise ValueError(
                    f"messages[{index}] is a system message directly after an assistant message: "
                    "move it to the front of the conversation."
                )
        else:
            if message.role is Role.ASSISTANT and not message.content:
                raise ValueError(f"messages[{index}] is an empty assistant message: give it content or leave it out.")
            if previous is message.role:
                spoken[-1] = ChatMessage(message.role, _PARAGRAPH.join((spoken[-1].content, message.content)))
            elif spoken and spoken[-1].role is message.role:
                raise ValueError(
                    f"messages[{index}] is a second {message.role} message, with only a system message between them: "
                    "move the system message to the front of the conversation."
                )
            else:
                spoken.append(message)
        previous = message.role
    return spoken


def _check_end(messages: Sequence[ChatMessage], continue_final_message: bool) -> None:
    """Refuse a conversation after which the model has no turn."""
    last = len(messages) - 1
    final_role = messages[last].role
    if continue_final_message and final_role is not Role.ASSISTANT:
        raise ValueError(
            f"messages[{last}] is a {final_role} message, and only an assistant message can be continued: "
            "unset continue_final_message, or end with the assistant message to continue."
        )
    if not continue_final_message and final_role is Role.ASSISTANT:
        raise ValueError(
            f"messages[{last}], the last, is an assistant message: end with a user message, "
            "or set continue_final_message to let the model go on with it."
        )
    if last == 0 and final_role is Role.ASSISTANT:
        raise ValueError("messages[0] is an assistant message and the only one: put a user message in front of it.")
