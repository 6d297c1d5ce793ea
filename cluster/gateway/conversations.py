"""The conversation of a prompt: its messages and tools, and how its outputs may call these."""

import json
import re

from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import Violations
from model.chat.calls import MISTRAL, nine
from model.chat.conversation import ChatMessage, Conversation, Role, Tool, ToolCall
from model.constraint.calls_grammar import MOST_TOOLS, CallRules
from protos.eightwinds.v1 import inference_pb2 as pb

MOST_MESSAGES = 4096
_ROLES = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.\-]{1,64}")
_AT = "prompt.chat"


def chat_ids(served: ServedModel, chat: pb.Chat, found: Violations) -> list[int]:
    """The ids of a conversation; those of a wrong one mean nothing."""
    form = served.chat_format
    if isinstance(form, str):
        found.add(_AT, f"model {served.id!r} {form}; send prompt.text")
        return []
    conversation = _conversation(served, chat, found)
    if conversation is None:
        return []
    return found.attempt(f"{_AT}.messages", lambda: form.ids(conversation), [])


def call_rules(served: ServedModel, chat: pb.Chat, found: Violations) -> CallRules | None:
    """How outputs may call the tools of a conversation; None where they have none."""
    syntax = served.call_syntax
    if not chat.tools or chat.tool_choice == pb.TOOL_CHOICE_NONE:
        if chat.tool_choice == pb.TOOL_CHOICE_REQUIRED:
            found.add(f"{_AT}.tool_choice", "demands a call, but there are no tools")
        return None
    if syntax is None:
        found.add(f"{_AT}.tools", "this model's template has no tools; leave them out, or choose none of them")
        return None
    named = chat.tool_name
    if named and named not in {tool.name for tool in chat.tools}:
        found.add(f"{_AT}.tool_name", f"names {named[:64]!r}, which is none of the tools")
    functions = [(t.name, t.parameters or '{"type": "object"}') for t in chat.tools if named in ("", t.name)]
    must = bool(named) or chat.tool_choice == pb.TOOL_CHOICE_REQUIRED
    single = bool(named) or chat.single_tool_call
    return CallRules(syntax, tuple(functions), must, single, syntax.mark_id(served.tokenizer))


def _conversation(served: ServedModel, chat: pb.Chat, found: Violations) -> Conversation | None:
    if len(chat.messages) > MOST_MESSAGES:
        found.add(f"{_AT}.messages", f"must hold at most {MOST_MESSAGES} messages")
        return None
    before = len(found)
    messages, tools = [], []
    for i, message in enumerate(chat.messages):
        at = f"{_AT}.messages[{i}]"
        if message.role not in _ROLES:
            found.add(f"{at}.role", "must be ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT or ROLE_TOOL")
            continue
        if message.tool_calls and message.role != pb.ROLE_ASSISTANT:
            found.add(f"{at}.tool_calls", "belong to messages of ROLE_ASSISTANT")
        for j, call in enumerate(message.tool_calls):
            found.unless(_is_object(call.arguments or "{}"), f"{at}.tool_calls[{j}].arguments", "must be a JSON object")
        messages.append(_message(message, short=served.call_syntax is MISTRAL))
    if chat.tool_choice != pb.TOOL_CHOICE_NONE:
        found.unless(len(chat.tools) <= MOST_TOOLS, f"{_AT}.tools", f"must hold at most {MOST_TOOLS} tools")
        for i, tool in enumerate(chat.tools):
            at = f"{_AT}.tools[{i}]"
            good = _TOOL_NAME.fullmatch(tool.name) is not None
            found.unless(good, f"{at}.name", "must have 1 to 64 letters, digits, _, - or .")
            found.unless(_is_object(tool.parameters or "{}"), f"{at}.parameters", "must be a JSON schema of an object")
            tools.append(Tool(tool.name, tool.description, tool.parameters or '{"type": "object", "properties": {}}'))
        names = [tool.name for tool in chat.tools]
        found.unless(len(set(names)) == len(names), f"{_AT}.tools", "must differ in their names")
    if len(found) > before:
        return None
    return Conversation(tuple(messages), tuple(tools), chat.continue_final_message, not chat.no_generation_prompt)


def _message(message: pb.ChatMessage, short: bool) -> ChatMessage:
    """`short`: ids of calls have the nine letters that Mistral's templates demand."""
    shorten = nine if short else str
    calls = tuple(ToolCall(shorten(c.id), c.name, c.arguments or "{}") for c in message.tool_calls)
    call_id = shorten(message.tool_call_id) if message.role == pb.ROLE_TOOL else ""
    return ChatMessage(_ROLES[message.role], message.content, calls, call_id, message.name)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
