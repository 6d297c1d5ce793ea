"""Messages that a client makes and shows: requests from options, and answers as JSON."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from cluster.settings.request_options import REQUEST_OPTIONS, Options
from protos.eightwinds.v1 import inference_pb2 as pb

EVERYTHING_LEFT_OPEN = Options()
_ROLES = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}


def _request(prompt: pb.Prompt, options: Options) -> pb.GenerateRequest:
    if options.json_schema and options.regex:
        raise ValueError("give a JSON schema or a regular expression, not both")
    messages: defaultdict[str, Any] = defaultdict(dict)  # by name in GenerateRequest
    for name, option in REQUEST_OPTIONS.items():
        value = getattr(options, name)
        if value is not None and value != "":
            messages[option.message][name] = value
    return pb.GenerateRequest(prompt=prompt, **messages.pop("", {}), **messages)


def text_request(prompt: str, options: Options = EVERYTHING_LEFT_OPEN) -> pb.GenerateRequest:
    """A request for the continuation of a text. ValueError for what its fields cannot hold."""
    return _request(pb.Prompt(text=prompt), options)


def chat_request(messages: Sequence[tuple[str, str]], options: Options = EVERYTHING_LEFT_OPEN) -> pb.GenerateRequest:
    """A request for the next turn of a conversation of (role, content), with roles system, user and assistant."""
    turns = [pb.ChatMessage(role=_ROLES[role], content=content) for role, content in messages]
    return _request(pb.Prompt(chat=pb.Chat(messages=turns)), options)


def to_json(message: Message) -> str:
    """A message on one line, with the names of the proto file."""
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True), ensure_ascii=False)
