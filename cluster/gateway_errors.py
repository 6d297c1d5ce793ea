"""Every failure's way to the client: one mapping to a gRPC status with details, applied by one interceptor.

An exception's text never leaves the server; what clients see is written here.
"""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from cluster.engine import EngineStopped, QueueFull
from cluster.generation import GenerationFailed

log = logging.getLogger("eightwinds.gateway")

DOMAIN = "eightwinds.dev"
_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field, by its path in the request, and what to change."""

    field: str
    description: str


@dataclass(slots=True)
class ApiError(Exception):
    """A failure as the client is told it: code, UPPER_SNAKE reason, sentence, and further details."""

    code: grpc.StatusCode
    reason: str
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    details: Sequence[message.Message] = ()


def invalid(violations: Sequence[Violation], metadata: Mapping[str, str] | None = None) -> ApiError:
    """All wrong fields of a request at once."""
    detail = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description) for v in violations
        ]
    )
    text = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", text, metadata or {}, [detail])


def unknown_model(name: str, served: str) -> ApiError:
    """A model that is not served."""
    text = f"model {name!r} is not served here; use {served!r} or leave it empty"
    detail = error_details_pb2.ResourceInfo(resource_type="eightwinds.v1.Model", resource_name=name, description=text)
    return ApiError(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", text, details=[detail])


def unavailable(reason: str, text: str, retry_seconds: float) -> ApiError:
    """Not now: starting, draining, or an expert without a replica."""
    return ApiError(grpc.StatusCode.UNAVAILABLE, reason, text, details=[_retry(retry_seconds)])


def _retry(seconds: float) -> message.Message:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    info: message.Message = error_details_pb2.RetryInfo(retry_delay=delay)
    return info


def to_api_error(error: Exception, request_id: str) -> ApiError:
    """The one mapping from what happened to what the client is told."""
    match error:
        case ApiError():
            return error
        case QueueFull():
            return ApiError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_FULL",
                "the queue is full; send the request again later",
                details=[_retry(error.retry_seconds)],
            )
        case EngineStopped():
            return unavailable("ENGINE_STOPPED", "the server is shutting down or its engine has ended", 5.0)
        case GenerationFailed(kind="unavailable"):
            return unavailable("EXPERT_UNAVAILABLE", "a part of the model did not answer in its grace", 5.0)
    log.error("request %s failed", request_id, exc_info=error)
    return ApiError(
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        "the server failed; its log has the reason under this request id",
        details=[error_details_pb2.RequestInfo(request_id=request_id)],
    )


def status_of(error: ApiError) -> status_pb2.Status:
    """google.rpc.Status with exactly one ErrorInfo."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))
    status = status_pb2.Status(code=error.code.value[0], message=error.text)
    for detail in (info, *error.details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: ApiError) -> None:
    """End the call with an error's status."""
    trailing = (*(context.trailing_metadata() or ()), (_DETAILS_KEY, status_of(error).SerializeToString()))
    await context.abort(error.code, error.text, trailing)


Handler = Callable[[Any, Any], Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Parses requests itself, so that rubbish becomes INVALID_ARGUMENT, and turns exceptions into statuses."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap our own methods; health and reflection stay as they are."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/eightwinds."):
            return handler
        parse = handler.request_deserializer
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream, parse), None, handler.response_serializer
            )
        assert handler.unary_unary is not None, "our methods take one message"
        return grpc.unary_unary_rpc_method_handler(
            _unary(handler.unary_unary, parse), None, handler.response_serializer
        )


def _unary(method: Handler, parse: Any) -> Handler:
    async def call(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        request_id = request_id_of(context)
        try:
            return await method(_parsed(parse, raw), context)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await abort(context, to_api_error(error, request_id))

    return call


def _stream(method: Handler, parse: Any) -> Handler:
    async def call(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        request_id = request_id_of(context)
        try:
            async for response in method(_parsed(parse, raw), context):
                yield response
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await abort(context, to_api_error(error, request_id))

    return call


def _parsed(parse: Any, raw: bytes) -> Any:
    try:
        return parse(raw)
    except Exception:  # protobuf's DecodeError, or UnicodeDecodeError from its string fields
        raise ApiError(
            grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE", "the bytes are no message of this method"
        ) from None


def request_id_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The caller's `x-request-id`, or ""."""
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str):
            return value[:128]
    return ""
