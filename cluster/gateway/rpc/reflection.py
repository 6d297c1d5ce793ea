"""Server reflection as v1alpha and as v1. Python's package knows neither v1 nor methods as symbols."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

NAMES = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Let clients list and describe these services, and reflection itself."""
    _describe_v1()
    servicer = _Reflection((*services, *NAMES))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in NAMES:
        generic = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((generic,))


class _Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]
    """Finds `package.Service.Method` too, which the protobuf library's own look-up misses."""

    def _file_containing_symbol(self, request: Any, fully_qualified_name: str) -> Any:
        parent, _, method = fully_qualified_name.rpartition(".")
        with suppress(KeyError):
            if method in descriptor_pool.Default().FindServiceByName(parent).methods_by_name:
                fully_qualified_name = parent
        return super()._file_containing_symbol(request, fully_qualified_name)


def _describe_v1() -> None:
    """Add v1's descriptor, made from v1alpha's (alike on the wire), so that v1 can be described too."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(NAMES[1])
    except KeyError:
        alpha, v1 = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
        text_format.Parse(text_format.MessageToString(alpha).replace("v1alpha", "v1"), v1)
        pool.Add(v1)
