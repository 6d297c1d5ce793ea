"""Turns a prompt into ids: text, ids as they are, or the messages of a chat."""

from functools import partial

from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import Violations
from model.text.chat import ChatMessage, Role
from protos.eightwinds.v1 import inference_pb2 as pb

MOST_MESSAGES = 4096

_ROLES = {pb.ROLE_SYSTEM: Role.SYSTEM, pb.ROLE_USER: Role.USER, pb.ROLE_ASSISTANT: Role.ASSISTANT}


def prompt_ids(served: ServedModel, prompt: pb.Prompt, found: Violations) -> list[int]:
    """The ids of a prompt; those of a wrong one mean nothing."""
    match prompt.WhichOneof("prompt"):
        case "text":
            return found.attempt("prompt.text", lambda: served.tokenizer.encode(prompt.text), [])
        case "token_ids":
            ids = list(prompt.token_ids.ids)
            found.unless(bool(ids), "prompt.token_ids.ids", "must name at least one token")
            found.ids(ids, "prompt.token_ids.ids", served.checkpoint.config.vocab_size)
            return ids
        case "chat":
            return _chat_ids(served, prompt.chat, found)
    found.add("prompt", "must be one of text, token_ids, chat")
    return []


def _chat_ids(served: ServedModel, chat: pb.Chat, found: Violations) -> list[int]:
    if not served.chat:
        why = served.chat_refusal or "has no chat template"
        found.add("prompt.chat", f"model {served.id!r} {why}; send prompt.text")
        return []
    if len(chat.messages) > MOST_MESSAGES:
        found.add("prompt.chat.messages", f"must hold at most {MOST_MESSAGES} messages")
        return []
    unknown = [i for i, message in enumerate(chat.messages) if message.role not in _ROLES]
    for i in unknown:
        found.add(f"prompt.chat.messages[{i}].role", "must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT")
    if unknown:
        return []
    messages = [ChatMessage(_ROLES[message.role], message.content) for message in chat.messages]
    encode = partial(served.tokenizer.encode_chat, messages, continue_final_message=chat.continue_final_message)
    return found.attempt("prompt.chat.messages", encode, [])
