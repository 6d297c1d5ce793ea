"""A connection to a server, for the commands and for Python programs: one method for each RPC."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict, ParseError

from cluster.client.proxies import proxy_options
from cluster.client.tls import Tls
from protos.eightwinds.v1 import cluster_pb2 as cluster_pb
from protos.eightwinds.v1 import cluster_pb2_grpc, inference_pb2_grpc
from protos.eightwinds.v1 import inference_pb2 as pb

Request = pb.GenerateRequest
Status = cluster_pb.GetStatusResponse
ScalingPolicy = cluster_pb.ScalingPolicy
Node = cluster_pb.Node
Expert = cluster_pb.Expert
Load = cluster_pb.ExpertLoad
LoadWindow = cluster_pb.WatchExpertLoadResponse
Event = cluster_pb.Event

# gRPC waits up to two minutes between attempts to connect; a server that was killed is back in seconds.
_CHANNEL = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000))
_SECONDS = 60.0  # for the answer to a change of the cluster


def read_token(file: Path | None, environment: Mapping[str, str]) -> str:
    """The token in a file, else in EIGHTWINDS_TOKEN, else "": an argument could be read by every user of the machine.
    ValueError if the file holds no token.
    """
    source, token = "EIGHTWINDS_TOKEN", environment.get("EIGHTWINDS_TOKEN", "")
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
    if (file is not None and not token) or not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(f"{source} holds no token: it must be one line of printable ASCII")
    return token


class Client:
    """A connection to one server. Methods, and those of `stub`, raise grpc.RpcError."""

    def __init__(self, address: str, token: str = "", tls: Tls | None = None) -> None:
        """`token` goes along with every call; see `read_token`. Without `tls` what is sent can be read on its way."""
        self.address, self.encrypted = address, tls is not None
        options = [*_CHANNEL, *proxy_options(address)]
        if tls is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            self._channel = grpc.secure_channel(address, credentials, options)
        channel = grpc.intercept_channel(self._channel, _Bearer(token)) if token else self._channel
        self.stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def stream(self, request: pb.GenerateRequest, timeout: float | None = None) -> Iterator[pb.GenerateStreamResponse]:
        """The messages of GenerateStream; `timeout` in seconds is the call's deadline."""
        return iter(self.stub.GenerateStream(request, timeout=timeout))

    def generate(self, request: pb.GenerateRequest, timeout: float | None = None) -> pb.GenerateResponse:
        return self.stub.Generate(request, timeout=timeout)

    def models(self) -> list[pb.Model]:
        return list(self.stub.ListModels(pb.ListModelsRequest()).models)

    def status(self, timeout: float | None = 30.0) -> cluster_pb.GetStatusResponse:
        return self.cluster.GetStatus(cluster_pb.GetStatusRequest(), timeout=timeout)

    def scale(self, counts: Mapping[int, int], validate_only: bool = False) -> cluster_pb.ScaleExpertsResponse:
        """Want so many replicas of these experts."""
        wanted = [cluster_pb.ExpertScale(expert=e, replica_count=count) for e, count in counts.items()]
        request = cluster_pb.ScaleExpertsRequest(experts=wanted, validate_only=validate_only)
        return self.cluster.ScaleExperts(request, timeout=_SECONDS)

    def drain(self, node_id: str, seconds: float | None = None, cancel: bool = False) -> None:
        """Move the replicas of a node to others within `seconds`, or end that."""
        request = cluster_pb.DrainNodeRequest(node_id=node_id, cancel=cancel)
        if seconds is not None:
            request.deadline.FromMilliseconds(round(seconds * 1000))
        self.cluster.DrainNode(request, timeout=_SECONDS)

    def set_policy(self, values: Mapping[str, object]) -> ScalingPolicy:
        """Change these fields of the policy in force (`cooldown` in seconds), and answer it whole. ValueError for a
        field that there is not, or that is of another type.
        """
        policy = self.status().policy
        changes = {k: f"{v:f}s" if k == "cooldown" and isinstance(v, int | float) else v for k, v in values.items()}
        try:
            ParseDict(changes, policy)
        except ParseError as error:
            raise ValueError(str(error)) from None
        request = cluster_pb.SetScalingPolicyRequest(policy=policy)
        return self.cluster.SetScalingPolicy(request, timeout=_SECONDS).policy

    def watch_load(self, interval: float) -> Iterator[cluster_pb.WatchExpertLoadResponse]:
        """Each expert's usage, every `interval` seconds."""
        request = cluster_pb.WatchExpertLoadRequest()
        request.interval.FromMilliseconds(round(interval * 1000))
        return iter(self.cluster.WatchExpertLoad(request))

    def events(self, after: int = 0, follow: bool = False) -> Iterator[Event]:
        """The events after this number, oldest first; with `follow`, then new ones as they happen."""
        request = cluster_pb.WatchEventsRequest(after_sequence=after, follow=follow)
        for response in self.cluster.WatchEvents(request):
            yield from response.events


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, token: str) -> None:
        self._entry = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), self._entry]
        return continuation(details._replace(metadata=metadata), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return self.intercept_unary_unary(continuation, details, request)
