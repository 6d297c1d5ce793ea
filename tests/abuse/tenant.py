"""Abuses by a tenant: mallory has a token and sends ordinary calls, as many as the server takes."""

import json
import time
from collections import Counter
from itertools import cycle
from typing import Any

import grpc
from google.protobuf.message import Message

from protos.eightwinds.v1 import inference_pb2 as pb
from tests.abuse.target import Target, until


def refused_calls(server: Target, seconds: float) -> str:
    """Calls of a model that there is not, one after the other."""
    return _calls(server, seconds, pb.TokenizeRequest(model="none"))


def detokenizing(server: Target, seconds: float) -> str:
    """Detokenize of 4 MB, again and again."""
    return _calls(server, seconds, pb.DetokenizeRequest(token_ids=[300] * ((2 << 20) - 100)))


def tokenizing(server: Target, seconds: float) -> str:
    """Tokenize of 4 MB, six at a time."""
    return _calls(server, seconds, pb.TokenizeRequest(prompt=pb.Prompt(text="hello world " * 340_000)), at_once=6)


def empty_chat_messages(server: Target, seconds: float) -> str:
    """A million empty chat messages in one request."""
    chat = pb.Chat(messages=[pb.ChatMessage()] * 1_000_000)
    return _calls(server, seconds, pb.GenerateRequest(prompt=pb.Prompt(chat=chat)))


def costly_schemas(server: Target, seconds: float) -> str:
    """Schemas of twenty patterns that must all fit, six at a time, and no two alike."""
    requests = []
    for number in range(600):
        patterns = [{"pattern": f"^[a-z]{{{i},{number + 9}}}.*{i}x{number}"} for i in range(1, 21)]
        schema = json.dumps({"type": "string", "allOf": patterns})
        constraint, prompt = pb.Constraint(json_schema=schema), pb.Prompt(text="a")
        requests.append(pb.GenerateRequest(prompt=prompt, constraint=constraint))
    return _calls(server, seconds, *requests, at_once=6)


def filling_the_slots(server: Target, seconds: float) -> str:
    """Sixty-four outputs as long as may be, and new ones for those that end."""
    prompt, stopping = pb.Prompt(text="Once upon"), pb.Stopping(max_tokens=2000, ignore_eos=True)
    return _calls(server, seconds, pb.GenerateRequest(prompt=prompt, stopping=stopping, n=8), at_once=8)


def load_watches(server: Target, seconds: float) -> str:
    """Two hundred watches of every expert's load, which nobody reads."""
    kept, codes = list[Any](), Counter[str]()
    with grpc.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)]) as channel:
        method: Any = channel.unary_stream("/eightwinds.v1.ClusterService/WatchExpertLoad")
        for _ in until(seconds):
            kept += [method(b"", metadata=server.metadata) for _ in range(200 - len(kept))]
            time.sleep(0.5)
            for call in [call for call in kept if not call.is_active()]:
                codes[call.code().name] += 1
                kept.remove(call)
        for call in kept:
            call.cancel()
    return f"{len(kept)} held, {_counts(codes)}"


def _calls(server: Target, seconds: float, *requests: Message, at_once: int = 1) -> str:
    """One request after the other, round and round, so many at a time."""
    name = type(requests[0]).__name__.removesuffix("Request")
    raw, codes = cycle([request.SerializeToString() for request in requests]), Counter[str]()
    with grpc.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)]) as channel:
        method: Any = channel.unary_unary(f"/eightwinds.v1.InferenceService/{name}")
        for _ in until(seconds):
            for call in [method.future(next(raw), timeout=20.0, metadata=server.metadata) for _ in range(at_once)]:
                codes[call.code().name] += 1
    return _counts(codes)


def _counts(codes: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(codes.items())) or "none ended"
