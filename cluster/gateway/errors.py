"""Every failure's way to the client: one mapping to a gRPC status with details, applied by `gateway_calls`.

An exception's text never leaves the server; what clients see is written here.
"""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from cluster.engine.engine import EngineStopped, QueueFull
from cluster.engine.generation import GenerationFailed
from cluster.gateway.examination.pool import Busy
from cluster.gateway.rpc.uploads import UploadTooSlow

log = logging.getLogger("eightwinds.gateway")

DOMAIN = "eightwinds.dev"
_DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"

# A status travels in HTTP headers, and clients refuse more than 8 to 16 KB of those.
_MOST_VIOLATIONS = 32
_LONGEST_TEXT = 1000


class DeparturesFilter(logging.Filter):
    """Drops what gRPC logs, with a traceback, when a client is gone before the last message to it is sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for such a record."""
        return not (record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError))


_departures = DeparturesFilter()


def hide_departures() -> None:
    """Put the filter into gRPC's logger; once is enough, and more do no harm."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_departures)


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
    """All wrong fields of a request at once (of a list with very many wrong entries, the first ones)."""
    detail = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=_cut(v.description, 200))
            for v in violations[:_MOST_VIOLATIONS]
        ]
    )
    text = _cut("; ".join(f"{v.field}: {v.description}" for v in violations), _LONGEST_TEXT)
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", text, metadata or {}, [detail])


def unknown_model(name: str, served: str) -> ApiError:
    """A model that is not served."""
    name = _cut(name, 100)
    text = f"model {name!r} is not served here; use {served!r} or leave it empty"
    detail = error_details_pb2.ResourceInfo(resource_type="eightwinds.v1.Model", resource_name=name, description=text)
    return ApiError(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", text, details=[detail])


def unavailable(reason: str, text: str, retry_seconds: float) -> ApiError:
    """Not now: starting, draining, or an expert without a replica."""
    return ApiError(grpc.StatusCode.UNAVAILABLE, reason, text, details=[_retry(retry_seconds)])


def exhausted(reason: str, text: str, retry_seconds: float) -> ApiError:
    """Too much of something at the moment."""
    return ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, text, details=[_retry(retry_seconds)])


def too_costly(text: str) -> ApiError:
    """A request that would cost more than one may, however often it is sent."""
    return ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_COSTLY", text)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _retry(seconds: float) -> message.Message:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    info: message.Message = error_details_pb2.RetryInfo(retry_delay=delay)
    return info


def _about(request_id: str) -> message.Message:
    info: message.Message = error_details_pb2.RequestInfo(request_id=request_id)
    return info


def to_api_error(error: Exception, request_id: str) -> ApiError:
    """The one mapping from what happened to what the client is told."""
    match error:
        case ApiError():
            return error
        case QueueFull():
            return exhausted("QUEUE_FULL", "the queue is full; send the request again later", error.retry_seconds)
        case Busy():
            text = "too much is being tokenized and compiled at the moment; send the request again later"
            return exhausted("EXAMINATION_BUSY", text, error.retry_seconds)
        case UploadTooSlow():
            text = "the message did not come in time, or others needed its place; send it whole, and at once"
            return exhausted("MESSAGE_TOO_SLOW", text, 1.0)
        case EngineStopped() | GenerationFailed(kind="stopped"):
            return unavailable("ENGINE_STOPPED", "the server is shutting down or its engine has ended", 5.0)
        case GenerationFailed(kind="unavailable"):
            return unavailable("EXPERT_UNAVAILABLE", "a part of the model did not answer in its grace", 5.0)
        case GenerationFailed(kind="slow"):
            text = "more of the answer was waiting to be read than is kept; read the stream faster, or ask for less"
            return exhausted("CLIENT_TOO_SLOW", text, 1.0)
        case GenerationFailed(kind="numeric"):
            text = "the model gave NaN or infinity for this prompt; the server's log names the layer"
            return ApiError(grpc.StatusCode.INTERNAL, "NUMERIC_FAULT", text, details=[_about(request_id)])
        case GenerationFailed(kind="constraint"):
            text = "the text came to a place from which none that is allowed can be reached; try another seed"
            return ApiError(grpc.StatusCode.ABORTED, "CONSTRAINT_FAILED", text)
    log.error("request %s failed", request_id, exc_info=error)
    return ApiError(
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        "the server failed; its log has the reason under this request id",
        details=[_about(request_id)],
    )


def status_of(error: ApiError) -> status_pb2.Status:
    """google.rpc.Status with exactly one ErrorInfo."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))
    status = status_pb2.Status(code=error.code.value[0], message=_cut(error.text, _LONGEST_TEXT))
    for detail in (info, *error.details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


Context = grpc.aio.ServicerContext[Any, Any]


async def abort(context: Context, error: ApiError, request_id: str) -> None:
    """End the call with an error's status; the request id goes along. Raises, as gRPC's own abort does."""
    details = (_DETAILS_KEY, status_of(error).SerializeToString())
    trailing = (*(context.trailing_metadata() or ()), (REQUEST_ID_KEY, request_id), details)
    with unless_gone():
        await context.abort(error.code, _cut(error.text, _LONGEST_TEXT), trailing)


@contextmanager
def unless_gone() -> Iterator[None]:
    """What gRPC raises when the call has ended meanwhile, by its deadline or its client, is a cancellation."""
    try:
        yield
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def given_id(context: Context) -> str:
    """The caller's `x-request-id`, or a new id."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and good_request_id(value):
            return value
    return secrets.token_hex(12)


def good_request_id(text: str) -> bool:
    """Whether it can travel as metadata: up to 256 printable ASCII characters."""
    return 0 < len(text) <= 256 and text.isascii() and text.isprintable()
