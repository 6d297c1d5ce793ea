"""The client: what the commands use, and what a Python program can."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cluster.client.proxies import proxy_of, proxy_options
from protos.eightwinds.v1 import cluster_pb2 as cluster_pb
from protos.eightwinds.v1 import cluster_pb2_grpc, inference_pb2_grpc
from protos.eightwinds.v1 import inference_pb2 as pb

EXIT_BASE = 10  # exit codes of failed calls are this plus the gRPC status code
TOKEN_VARIABLE = "EIGHTWINDS_TOKEN"

Request = pb.GenerateRequest
Status = cluster_pb.GetStatusResponse
ScalingPolicy = cluster_pb.ScalingPolicy
LoadWindow = cluster_pb.WatchExpertLoadResponse
Event = cluster_pb.Event

# gRPC waits up to two minutes between attempts to connect; a server that was killed is back in seconds.
_CHANNEL = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000))

_ROLES = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}


class Client:
    """A connection to one server. Methods, and those of `stub`, raise grpc.RpcError."""

    def __init__(self, address: str, token: str = "") -> None:
        """`token` goes along with every call; see `read_token`."""
        self.address = address
        self._channel = grpc.insecure_channel(address, [*_CHANNEL, *proxy_options(address)])
        channel = grpc.intercept_channel(self._channel, _Bearer(token)) if token else self._channel
        self.stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def stream(self, request: pb.GenerateRequest, timeout: float | None = None) -> Iterator[pb.GenerateStreamResponse]:
        """The messages of GenerateStream; `timeout` in seconds is the call's deadline."""
        return iter(self.stub.GenerateStream(request, timeout=timeout))

    def generate(self, request: pb.GenerateRequest, timeout: float | None = None) -> pb.GenerateResponse:
        """The answer of Generate."""
        return self.stub.Generate(request, timeout=timeout)

    def models(self) -> list[pb.Model]:
        """What is served."""
        return list(self.stub.ListModels(pb.ListModelsRequest()).models)

    def status(self, timeout: float | None = 30.0) -> cluster_pb.GetStatusResponse:
        """Nodes, experts and replicas."""
        return self.cluster.GetStatus(cluster_pb.GetStatusRequest(), timeout=timeout)

    def scale(
        self, counts: Mapping[int, int], validate_only: bool = False, timeout: float | None = 30.0
    ) -> cluster_pb.ScaleExpertsResponse:
        """Want so many replicas of these experts."""
        wanted = [cluster_pb.ExpertScale(expert=e, replica_count=count) for e, count in counts.items()]
        request = cluster_pb.ScaleExpertsRequest(experts=wanted, validate_only=validate_only)
        return self.cluster.ScaleExperts(request, timeout=timeout)

    def drain(self, node_id: str, seconds: float | None = None, cancel: bool = False, timeout: float = 30.0) -> None:
        """Move the replicas of a node to others within `seconds`, or end that."""
        request = cluster_pb.DrainNodeRequest(node_id=node_id, cancel=cancel)
        if seconds is not None:
            request.deadline.FromMilliseconds(round(seconds * 1000))
        self.cluster.DrainNode(request, timeout=timeout)

    def set_policy(self, values: Mapping[str, object], timeout: float | None = 30.0) -> ScalingPolicy:
        """Follow the policy in force with these fields changed (`cooldown` in seconds), and answer it whole.

        ValueError for a field that there is not, or that is of another type.
        """
        policy = self.status(timeout).policy
        changes = {k: f"{v:f}s" if k == "cooldown" and isinstance(v, int | float) else v for k, v in values.items()}
        try:
            ParseDict(changes, policy)
        except ParseError as error:
            raise ValueError(str(error)) from None
        return self.cluster.SetScalingPolicy(cluster_pb.SetScalingPolicyRequest(policy=policy), timeout=timeout).policy

    def watch_load(self, interval: float) -> Iterator[cluster_pb.WatchExpertLoadResponse]:
        """What each expert did, every `interval` seconds."""
        request = cluster_pb.WatchExpertLoadRequest()
        request.interval.FromMilliseconds(round(interval * 1000))
        return iter(self.cluster.WatchExpertLoad(request))

    def events(self, after: int = 0, follow: bool = False) -> Iterator[Event]:
        """What has happened since the event of this number, oldest first; with `follow`, then what happens."""
        request = cluster_pb.WatchEventsRequest(after_sequence=after, follow=follow)
        for response in self.cluster.WatchEvents(request):
            yield from response.events


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Puts the token into every call."""

    def __init__(self, token: str) -> None:
        self._entry = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def _with_token(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or ()), self._entry])


def read_token(file: Path | None, environment: Mapping[str, str]) -> str:
    """The token in a file, else in EIGHTWINDS_TOKEN, else none ("").

    ValueError if the file is unreadable or holds no token; an argument could be read by every user of the machine.
    """
    source, token = TOKEN_VARIABLE, environment.get(TOKEN_VARIABLE, "")
    if file is not None:
        source = str(file)
        try:
            token = file.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"the token file {file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the token file {file} holds no text") from None
    token = token.strip()
    if "sha256:" in token:
        raise ValueError(f"{source} holds the server's hashes; clients need a file with the token itself")
    if (file is not None and not token) or not (token.isascii() and all(c.isprintable() and c != " " for c in token)):
        raise ValueError(f"{source} holds no token: it must be one line of printable ASCII")
    return token


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request asks for, by the names of its fields; None, "" and () are left to the server."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logprobs: int | None = None
    n: int | None = None
    priority: int = 0
    json_schema: str = ""
    regex: str = ""


EVERYTHING_LEFT_OPEN = Options()


def _request(prompt: pb.Prompt, options: Options) -> pb.GenerateRequest:
    o = options
    request = pb.GenerateRequest(
        prompt=prompt,
        sampling=pb.Sampling(
            temperature=o.temperature,
            top_p=o.top_p,
            top_k=o.top_k,
            min_p=o.min_p,
            repetition_penalty=o.repetition_penalty,
            presence_penalty=o.presence_penalty,
            frequency_penalty=o.frequency_penalty,
            seed=o.seed,
        ),
        stopping=pb.Stopping(max_tokens=o.max_tokens, min_tokens=o.min_tokens, stop=o.stop, ignore_eos=o.ignore_eos),
        output=pb.OutputOptions(logprobs=o.logprobs),
        n=o.n,
        priority=o.priority,
    )
    if o.json_schema and o.regex:
        raise ValueError("give a JSON schema or a regular expression, not both")
    if o.json_schema:
        request.constraint.json_schema = o.json_schema
    if o.regex:
        request.constraint.regex = o.regex
    return request


def text_request(prompt: str, options: Options = EVERYTHING_LEFT_OPEN) -> pb.GenerateRequest:
    """A request for the continuation of a text. ValueError for what its fields cannot hold."""
    return _request(pb.Prompt(text=prompt), options)


def chat_request(messages: Sequence[tuple[str, str]], options: Options = EVERYTHING_LEFT_OPEN) -> pb.GenerateRequest:
    """A request for the next turn of a conversation of (role, content), with roles system, user and assistant."""
    turns = [pb.ChatMessage(role=_ROLES[role], content=content) for role, content in messages]
    return _request(pb.Prompt(chat=pb.Chat(messages=turns)), options)


@dataclass(eq=False)
class CallFailed(Exception):
    """A failed call for whoever sits at a terminal: its status, what to say, and when the server wants it again.

    Not frozen: Python sets the traceback of an exception that passes a context manager.
    """

    code: int
    text: str
    retry_seconds: float | None


@contextmanager
def failing_plainly(client: Client) -> Iterator[None]:
    """Turn what a stub raises into CallFailed."""
    try:
        yield
    except grpc.RpcError as error:
        where = f"(server {client.address})"
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            where += "; --token-file or EIGHTWINDS_TOKEN gives a token"
        if error.code() is grpc.StatusCode.UNAVAILABLE and (proxy := proxy_of(client.address, os.environ)):
            where += f"; {proxy} sends this through a proxy: name the host in no_proxy if it should not"
        raise CallFailed(code_of(error), f"{explain(error)} {where}", retry_of(error)) from None


def explain(error: grpc.RpcError) -> str:
    """A failed call in one sentence, with the wrong fields where the server named them."""
    call: Any = error  # what a stub raises is a grpc.Call, too, which the type stubs cannot say
    retry = retry_of(error)
    again = f"; try again in {retry:g} s" if retry is not None else ""
    return f"{call.code().name}: {call.details()}{again}"


def retry_of(error: grpc.RpcError) -> float | None:
    """In how many seconds the server wants the call again, if it said so."""
    call: Any = error
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        return None
    for detail in status.details if status is not None else ():
        retry = error_details_pb2.RetryInfo()
        if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            return float(retry.retry_delay.ToMilliseconds() / 1000)
    return None


def code_of(error: grpc.RpcError) -> int:
    """The number of a failed call's status."""
    call: Any = error
    code: int = call.code().value[0]
    return code


def state_of(replica: cluster_pb.Replica) -> str:
    """A replica's state as a word."""
    return cluster_pb.ReplicaState.Name(replica.state).removeprefix("REPLICA_STATE_").lower()


def state_of_node(node: cluster_pb.Node) -> str:
    """A node's state as a word."""
    return cluster_pb.Node.State.Name(node.state).removeprefix("STATE_").lower()


def to_json(message: Message) -> str:
    """A message on one line, with the names of the proto file."""
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True), ensure_ascii=False)
