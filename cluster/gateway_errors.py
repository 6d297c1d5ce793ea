"""Every failure's way to the client: one mapping to a gRPC status with details, applied by one interceptor.

An exception's text never leaves the server; what clients see is written here.
"""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from cluster.engine import EngineStopped, QueueFull
from cluster.generation import GenerationFailed

log = logging.getLogger("eightwinds.gateway")

DOMAIN = "eightwinds.dev"
_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"

# A status travels in HTTP headers, and clients refuse more than 8 to 16 KB of those.
_MOST_VIOLATIONS = 32
_LONGEST_TEXT = 1000


class DeparturesFilter(logging.Filter):
    """Drops what gRPC logs, with a traceback, when a client is gone before the last message to it is sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for such a record."""
        return not (record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError))


logging.getLogger("grpc._cython.cygrpc").addFilter(DeparturesFilter())


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
            return ApiError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_FULL",
                "the queue is full; send the request again later",
                details=[_retry(error.retry_seconds)],
            )
        case EngineStopped() | GenerationFailed(kind="stopped"):
            return unavailable("ENGINE_STOPPED", "the server is shutting down or its engine has ended", 5.0)
        case GenerationFailed(kind="unavailable"):
            return unavailable("EXPERT_UNAVAILABLE", "a part of the model did not answer in its grace", 5.0)
        case GenerationFailed(kind="slow"):
            return ApiError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "CLIENT_TOO_SLOW",
                "more of the answer was waiting to be read than is kept; read the stream faster, or ask for less",
                details=[_retry(1.0)],
            )
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
    status = status_pb2.Status(code=error.code.value[0], message=error.text)
    for detail in (info, *error.details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


Context = grpc.aio.ServicerContext[Any, Any]


async def abort(context: Context, error: ApiError, request_id: str) -> None:
    """End the call with an error's status; the request id goes along."""
    details = (_DETAILS_KEY, status_of(error).SerializeToString())
    trailing = (*(context.trailing_metadata() or ()), (_REQUEST_ID_KEY, request_id), details)
    with _unless_gone():
        await context.abort(error.code, error.text, trailing)


@contextmanager
def _unless_gone() -> Iterator[None]:
    """What gRPC raises when the call has ended meanwhile, by its deadline or its client, is a cancellation."""
    try:
        yield
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


Handler = Callable[[Any, Any], Any]
Parse = Callable[[bytes], Any]
Ended = Callable[[grpc.StatusCode], None]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Parses requests itself, so that rubbish becomes INVALID_ARGUMENT, and turns exceptions into statuses.

    Gives every call its request id, too: the request's own, else `x-request-id`, else a new one. It is written into
    the request where that has room for it, and echoed in the metadata of the answer.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self.handled: Counter[tuple[str, str, str]] = Counter()  # calls that ended: service, method, code

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap our own methods; health and reflection stay as they are."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/eightwinds."):
            return handler
        parse = self._parser(handler.request_deserializer)
        _, service, method = details.method.split("/")

        def ended(code: grpc.StatusCode) -> None:
            self.handled[service, method, code.name] += 1

        if handler.unary_stream is not None:
            many = _stream(handler.unary_stream, parse, ended)
            return grpc.unary_stream_rpc_method_handler(many, None, handler.response_serializer)
        assert handler.unary_unary is not None, "our methods take one message"
        one = _unary(handler.unary_unary, parse, ended)
        return grpc.unary_unary_rpc_method_handler(one, None, handler.response_serializer)

    def _parser(self, parse: Any) -> Parse:
        def parsed(raw: bytes) -> Any:
            if len(raw) > self._max_message_bytes:
                text = f"the message has {len(raw)} bytes; at most {self._max_message_bytes} are taken"
                raise ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", text)
            try:
                return parse(raw)
            except Exception:  # protobuf's DecodeError, or UnicodeDecodeError from its string fields
                text = "the bytes are no message of this method"
                raise ApiError(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE", text) from None

        return parsed


def _unary(method: Handler, parse: Parse, ended: Ended) -> Handler:
    async def call(raw: bytes, context: Context) -> Any:
        request_id = given_id(context)
        try:
            request = parse(raw)
            request_id = _settle_id(request, request_id)
            response = await method(request, context)
            with _unless_gone():
                await context.send_initial_metadata(((_REQUEST_ID_KEY, request_id),))
            ended(grpc.StatusCode.OK)
            return response
        except (asyncio.CancelledError, Exception) as error:
            await _end(context, error, request_id, ended)

    return call


def _stream(method: Handler, parse: Parse, ended: Ended) -> Handler:
    async def call(raw: bytes, context: Context) -> AsyncIterator[Any]:
        request_id, started = given_id(context), False
        try:
            request = parse(raw)
            request_id = _settle_id(request, request_id)
            async with aclosing(method(request, context)) as responses:
                async for response in responses:
                    if not started:
                        with _unless_gone():
                            await context.send_initial_metadata(((_REQUEST_ID_KEY, request_id),))
                        started = True
                    yield response
            ended(grpc.StatusCode.OK)
        except (asyncio.CancelledError, Exception) as error:
            await _end(context, error, request_id, ended)

    return call


async def _end(context: Context, error: BaseException, request_id: str, ended: Ended) -> NoReturn:
    """End a call by what its handler raised. A cancellation is the client's or its deadline's."""
    if not isinstance(error, Exception):
        left = context.time_remaining()
        late = left is not None and left <= 0
        ended(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED)
        raise error
    api_error = to_api_error(error, request_id)
    ended(api_error.code)
    await abort(context, api_error, request_id)
    raise AssertionError("abort raises")


def given_id(context: Context) -> str:
    """The caller's `x-request-id`, or a new id."""
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID_KEY and isinstance(value, str) and good_request_id(value):
            return value
    return secrets.token_hex(12)


def _settle_id(request: Any, given: str) -> str:
    """The request's own id, else the given one, which is then written into the request."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name:
        return given
    request.request_id = request.request_id or given
    return request.request_id if good_request_id(request.request_id) else given


def good_request_id(text: str) -> bool:
    """Whether it can travel as metadata: up to 256 printable ASCII characters."""
    return 0 < len(text) <= 256 and text.isascii() and text.isprintable()
