"""Turns a prompt into ids: text, ids as they are, or a conversation."""

from functools import partial

from cluster.engine.served_model import ServedModel
from cluster.gateway.conversations import chat_ids
from cluster.gateway.errors import Violations
from protos.eightwinds.v1 import inference_pb2 as pb


def prompt_ids(served: ServedModel, prompt: pb.Prompt, found: Violations) -> list[int]:
    """The ids of a prompt; those of a wrong one mean nothing."""
    match prompt.WhichOneof("prompt"):
        case "text":
            encode = partial(
                served.tokenizer.encode, prompt.text, bos=not prompt.no_bos, specials=prompt.special_tokens
            )
            return found.attempt("prompt.text", encode, [])
        case "token_ids":
            ids = list(prompt.token_ids.ids)
            found.unless(bool(ids), "prompt.token_ids.ids", "must name at least one token")
            found.ids(ids, "prompt.token_ids.ids", served.checkpoint.config.vocab_size)
            return ids
        case "chat":
            return chat_ids(served, prompt.chat, found)
    found.add("prompt", "must be one of text, token_ids, chat")
    return []
