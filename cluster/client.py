"""The client: what the commands use, and what a Python program can."""

import json
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.eightwinds.v1 import inference_pb2 as pb
from protos.eightwinds.v1 import inference_pb2_grpc

EXIT_BASE = 10  # exit codes of failed calls are this plus the gRPC status code


class Client:
    """A connection to one server. Methods raise grpc.RpcError."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self.stub = inference_pb2_grpc.InferenceServiceStub(self._channel)

    def __enter__(self) -> "Client":
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


def text_request(
    prompt: str,
    max_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
) -> pb.GenerateRequest:
    """A request for the continuation of a text; what is None is left to the server."""
    return pb.GenerateRequest(
        prompt=pb.Prompt(text=prompt),
        sampling=pb.Sampling(temperature=temperature, seed=seed),
        stopping=pb.Stopping(max_tokens=max_tokens, stop=stop),
    )


def explain(error: grpc.RpcError) -> str:
    """A failed call in one sentence, with the wrong fields where the server named them."""
    call: Any = error  # what a stub raises is a grpc.Call, too, which the type stubs cannot say
    lines = [f"{call.code().name}: {call.details()}"]
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        status = None
    for detail in status.details if status is not None else ():
        retry = error_details_pb2.RetryInfo()
        if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            lines.append(f"try again in {retry.retry_delay.ToMilliseconds() / 1000:g} s")
    return "; ".join(lines)


def code_of(error: grpc.RpcError) -> int:
    """The number of a failed call's status."""
    call: Any = error
    code: int = call.code().value[0]
    return code


def print_generation(
    address: str,
    prompt: str,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    stop: Sequence[str],
    as_json: bool,
) -> int:
    """`eightwinds generate`: the exit code is 0, EXIT_BASE plus the status code, or 2 for what cannot be asked."""
    try:
        request = text_request(prompt, max_tokens, temperature, seed, stop)
    except ValueError as error:  # a number over the field's bits, or text that is no Unicode
        print(f"eightwinds generate: {error}", file=sys.stderr)
        return 2
    try:
        with Client(address) as client:
            if as_json:
                answer = client.generate(request)
                print(json.dumps(MessageToDict(answer, preserving_proto_field_name=True), ensure_ascii=False))
                return 0
            for message in client.stream(request):
                print(message.text, end="", flush=True)
            print()
            return 0
    except grpc.RpcError as error:
        print(f"\neightwinds generate: {explain(error)} (server {address})", file=sys.stderr)
        return EXIT_BASE + code_of(error)
    except KeyboardInterrupt:
        return 130
