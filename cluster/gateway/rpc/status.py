"""The gRPC door's side of a failure: google.rpc.Status with details, and the end of the call with it."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from cluster.gateway.errors import LONGEST_TEXT, ApiError, ErrorKind, cut
from cluster.gateway.validation import good_request_id

DOMAIN = "eightwinds.dev"
REQUEST_ID_KEY = "x-request-id"
_DETAILS_KEY = "grpc-status-details-bin"

# A status travels in HTTP headers, and clients refuse more than 8 to 16 KB of those.
_MOST_VIOLATIONS = 32
_LONGEST_DESCRIPTION = 200

CODES = {
    ErrorKind.INVALID: StatusCode.INVALID_ARGUMENT,
    ErrorKind.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: StatusCode.PERMISSION_DENIED,
    ErrorKind.NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorKind.PRECONDITION: StatusCode.FAILED_PRECONDITION,
    ErrorKind.ABORTED: StatusCode.ABORTED,
    ErrorKind.EXHAUSTED: StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.UNAVAILABLE: StatusCode.UNAVAILABLE,
    ErrorKind.INTERNAL: StatusCode.INTERNAL,
}

Context = grpc.aio.ServicerContext[Any, Any]


def status_of(error: ApiError, request_id: str) -> status_pb2.Status:
    """The status of a failure, with exactly one ErrorInfo."""
    status = status_pb2.Status(code=CODES[error.kind].value[0], message=cut(error.text, LONGEST_TEXT))
    for detail in _details(error, request_id):
        status.details.add().Pack(detail)
    return status


def _details(error: ApiError, request_id: str) -> Iterator[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))
    if error.violations:
        fields = [(v.field, cut(v.description, _LONGEST_DESCRIPTION)) for v in error.violations[:_MOST_VIOLATIONS]]
        wrong = [error_details_pb2.BadRequest.FieldViolation(field=path, description=why) for path, why in fields]
        yield error_details_pb2.BadRequest(field_violations=wrong)
    if error.model:
        kind = "eightwinds.v1.Model"
        yield error_details_pb2.ResourceInfo(resource_type=kind, resource_name=error.model, description=error.text)
    if error.retry_seconds is not None:
        delay = duration.from_milliseconds(int(error.retry_seconds * 1000))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if error.kind is ErrorKind.INTERNAL:
        yield error_details_pb2.RequestInfo(request_id=request_id)


async def abort(context: Context, error: ApiError, request_id: str) -> None:
    """End the call with a failure's status and the request id. Raises, as gRPC's own abort does."""
    details = (_DETAILS_KEY, status_of(error, request_id).SerializeToString())
    trailing = (*(context.trailing_metadata() or ()), (REQUEST_ID_KEY, request_id), details)
    with unless_gone():
        await context.abort(CODES[error.kind], cut(error.text, LONGEST_TEXT), trailing)


@contextmanager
def unless_gone() -> Iterator[None]:
    """Turn gRPC's error for a call that its deadline or its client has ended meanwhile into a cancellation."""
    try:
        yield
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def given_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and good_request_id(value):
            return value
    return secrets.token_hex(12)
