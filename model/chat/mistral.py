r"""Mistral's own templates: the first, of Mixtral-8x7B-Instruct, and the third, of Mixtral-8x22B-Instruct.

`InstructTokenizerV1` and `V3` of mistral-common are their public implementations. Every stretch is tokenized on its
own. In the first, `[INST]` and `[/INST]` are ordinary text; in the third they are control tokens:

    system "Be terse."  user "Hi"  assistant "Hello."  user "Bye"
    v1:  <s> | [INST] Be terse.\n\nHi [/INST] | Hello. | </s> | [INST] Bye [/INST]
    v3:  <s> | [INST] | Hi | [/INST] | Hello. | </s> | [INST] | Be terse.\n\nBye | [/INST]
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from model.chat.conversation import (
    PARAGRAPH,
    ChatMessage,
    Conversation,
    Role,
    ToolCall,
    checked,
    folded,
    from_json,
    to_json,
    without_tools,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A control token, by its name."""

    name: str


Stretch = str | Mark
_BOS, _EOS = Mark("<s>"), Mark("</s>")


def v1(conversation: Conversation) -> Iterator[Stretch]:
    """System messages go in front of the first user message. ValueError as of `checked`."""
    system, turns = folded(without_tools(checked(conversation).messages))
    yield _BOS
    for i, turn in enumerate(turns):
        if turn.role == Role.USER:
            content = PARAGRAPH.join([system, turn.content]) if system and not i else turn.content
            yield f"[INST] {content} [/INST]"
        else:
            yield turn.content
            if not _is_open(conversation, turns, i):
                yield _EOS


def v3(conversation: Conversation) -> Iterator[Stretch]:
    """System messages go in front of the last user message, and tools before it. ValueError as of `checked`."""
    system, turns = folded(checked(conversation).messages)
    last = max(i for i, turn in enumerate(turns) if turn.role == Role.USER)
    yield _BOS
    for i, turn in enumerate(turns):
        match turn.role:
            case Role.USER:
                if i == last and conversation.tools:
                    yield from (Mark("[AVAILABLE_TOOLS]"), to_json([t.described() for t in conversation.tools]))
                    yield Mark("[/AVAILABLE_TOOLS]")
                content = PARAGRAPH.join([system, turn.content]) if system and i == last else turn.content
                yield from (Mark("[INST]"), content, Mark("[/INST]"))
            case Role.TOOL:
                answer = {"content": from_json(turn.content or "{}"), "call_id": turn.call_id}
                yield from (Mark("[TOOL_RESULTS]"), to_json(answer), Mark("[/TOOL_RESULTS]"))
            case _:
                if turn.content:
                    yield turn.content.rstrip(" ")
                if turn.calls:
                    yield from (Mark("[TOOL_CALLS]"), to_json([_call(call) for call in turn.calls]))
                if not _is_open(conversation, turns, i):
                    yield _EOS


def _is_open(conversation: Conversation, turns: Sequence[ChatMessage], i: int) -> bool:
    return conversation.continue_final and i == len(turns) - 1


def _call(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": from_json(call.arguments or "{}"), "id": call.id}
