"""Services and methods as a client without stubs finds them."""

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import StatusCode
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from protos.eightwinds.v1 import inference_pb2 as pb
from tests.fakes import PATIENCE
from tests.serving import Serving

SERVICE = "eightwinds.v1.InferenceService"
VERSIONS = ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"]


def reflect(server: Serving, version: str, **ask: str) -> reflection_pb2.ServerReflectionResponse:
    call = server.channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return next(call(iter([reflection_pb2.ServerReflectionRequest(**ask)]), timeout=PATIENCE))


def files_of(answer: reflection_pb2.ServerReflectionResponse) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    serialized = answer.file_descriptor_response.file_descriptor_proto
    files = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in serialized]
    return {file.name: file for file in files}


@pytest.mark.parametrize("version", VERSIONS)
def test_reflection_lists_every_service(version: str, serving: Serving) -> None:
    answer = reflect(serving, version, list_services="")
    names = {service.name for service in answer.list_services_response.service}
    assert names == {SERVICE, "eightwinds.v1.ClusterService", "grpc.health.v1.Health", *VERSIONS}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "symbol",
    [SERVICE, f"{SERVICE}.Generate", f"{SERVICE}.ListModels", "eightwinds.v1.Prompt", "eightwinds.v1.Sampling.top_k"],
)
def test_reflection_describes_services_methods_messages_and_fields(symbol: str, version: str, serving: Serving) -> None:
    answer = reflect(serving, version, file_containing_symbol=symbol)
    assert pb.DESCRIPTOR.name in files_of(answer)
    assert "google/protobuf/duration.proto" in files_of(answer), "with all it needs"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("listed", ["grpc.health.v1.Health", "grpc.health.v1.Health.Watch", *VERSIONS])
def test_what_is_listed_can_be_described(listed: str, version: str, serving: Serving) -> None:
    files = files_of(reflect(serving, version, file_containing_symbol=listed))
    assert any(listed.startswith(f"{file.package}.") for file in files.values())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("symbol", ["eightwinds.v1.Guess", f"{SERVICE}.Guess", "", "Guess"])
def test_an_unknown_symbol_is_not_found(symbol: str, version: str, serving: Serving) -> None:
    answer = reflect(serving, version, file_containing_symbol=symbol)
    assert answer.error_response.error_code == StatusCode.NOT_FOUND.value[0]


def test_a_client_without_stubs_finds_and_calls_a_method(serving: Serving) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(serving.channel))
    service = pool.FindServiceByName(SERVICE)
    assert [m.name for m in service.methods] == ["Generate", "GenerateStream", "Tokenize", "Detokenize", "ListModels"]
    stream = service.FindMethodByName("GenerateStream")
    assert stream.server_streaming and not stream.client_streaming
    assert stream.input_type.full_name == "eightwinds.v1.GenerateRequest"
    assert stream.output_type.fields_by_name["text"].number == pb.GenerateStreamResponse.TEXT_FIELD_NUMBER


def test_reflection_stub_of_the_package_works_as_it_comes(serving: Serving) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(serving.channel)
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")] * 2
    assert len(list(stub.ServerReflectionInfo(iter(requests), timeout=PATIENCE))) == 2
