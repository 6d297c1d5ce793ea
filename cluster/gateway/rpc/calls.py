"""What every call goes through: its message is read here, and what its handler raises becomes its status.

gRPC would read a message whole before it calls a handler of one message. Ours are registered as handlers of many: the
call is settled first, and the message is then read within the bounds of `cluster.gateway.rpc.uploads`.
"""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import Descriptor

from cluster.gateway.errors import (
    REQUEST_ID_KEY,
    ApiError,
    Context,
    abort,
    given_id,
    good_request_id,
    to_api_error,
    unless_gone,
)
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.examination.fields import LEAST_FIELD_BYTES, has_more_fields
from cluster.gateway.examination.pool import SMALL_BYTES, Busy, Examination
from cluster.gateway.rpc.auth import tenant
from cluster.gateway.rpc.limits import Places
from cluster.gateway.rpc.uploads import Uploads
from cluster.observe.refusals import Refusals
from cluster.settings.config import LimitsSection

Handler = Callable[[Any, Any], Any]
Ended = Callable[[grpc.StatusCode], None]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Reads and parses requests, so that rubbish becomes INVALID_ARGUMENT, and turns exceptions into statuses.

    Gives every call its request id, too: the request's own, else `x-request-id`, else a new one. It is written into
    the request where that has room for it, and echoed in the metadata of the answer.
    """

    def __init__(self, message_bytes: int, limits: LimitsSection, examination: Examination, refusals: Refusals) -> None:
        """A message has at most `message_bytes`; the fields of long ones are counted by `examination`."""
        self.handled: Counter[tuple[str, str, str]] = Counter()  # calls that ended: service, method, code
        self._message_bytes, self._message_fields = message_bytes, limits.message_fields
        self._uploads = Uploads(limits.uploads, limits.upload_s)
        self._places = Places(limits.calls, "TOO_MANY_CALLS", "calls")
        self._examination, self._refusals = examination, refusals

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap our own methods; health and reflection stay as they are."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/eightwinds."):
            return handler
        _, service, method = details.method.split("/")

        def ended(code: grpc.StatusCode) -> None:
            self.handled[service, method, code.name] += 1

        parse = handler.request_deserializer
        if handler.unary_stream is not None:
            many = self._stream(handler.unary_stream, parse, ended)
            return grpc.stream_stream_rpc_method_handler(many, None, handler.response_serializer)
        assert handler.unary_unary is not None, "our methods take one message"
        one = self._unary(handler.unary_unary, parse, ended)
        return grpc.stream_unary_rpc_method_handler(one, None, handler.response_serializer)

    def _unary(self, method: Handler, parse: Any, ended: Ended) -> Handler:
        async def call(messages: object, context: Context) -> Any:
            request_id = given_id(context)
            try:
                with self._places:
                    request = await self._read(context, parse)
                    request_id = _settle_id(request, request_id)
                    response = await method(request, context)
                with unless_gone():
                    await context.send_initial_metadata(((REQUEST_ID_KEY, request_id),))
                ended(grpc.StatusCode.OK)
                return response
            except (asyncio.CancelledError, Exception) as error:
                await self._end(context, error, request_id, ended)

        return call

    def _stream(self, method: Handler, parse: Any, ended: Ended) -> Handler:
        async def call(messages: object, context: Context) -> AsyncIterator[Any]:
            request_id, started = given_id(context), False
            try:
                with self._places:
                    request = await self._read(context, parse)
                    request_id = _settle_id(request, request_id)
                    async with aclosing(method(request, context)) as responses:
                        async for response in responses:
                            if not started:
                                with unless_gone():
                                    await context.send_initial_metadata(((REQUEST_ID_KEY, request_id),))
                                started = True
                            yield response
                ended(grpc.StatusCode.OK)
            except (asyncio.CancelledError, Exception) as error:
                await self._end(context, error, request_id, ended)

        return call

    async def _read(self, context: Context, parse: Any) -> Any:
        """The call's one message; ApiError for what is none."""

        async def reading() -> Any:
            with unless_gone():
                return await context.read()

        raw = await self._uploads.read(tenant(context), context.peer(), reading)
        if raw is grpc.aio.EOF:
            raise _malformed("the call came without a message")
        if len(raw) > self._message_bytes:
            text = f"the message has {len(raw)} bytes; at most {self._message_bytes} are taken"
            raise ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", text)
        try:
            if await self._has_too_many_fields(raw, parse.__self__.DESCRIPTOR, context):  # FromString of a class
                text = f"the message has too many fields: at most {self._message_fields} are taken, inner ones included"
                raise ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", text)
            return parse(raw)
        except (ApiError, Busy):
            raise
        except Exception:  # protobuf's DecodeError, or UnicodeDecodeError from its string fields
            raise _malformed("the bytes are no message of this method") from None

    async def _has_too_many_fields(self, raw: bytes, kind: Descriptor, context: Context) -> bool:
        """Counting takes longer than parsing, but a parsed message may take a hundred times the memory of its bytes."""
        if len(raw) <= SMALL_BYTES:
            return has_more_fields(raw, kind, self._message_fields)
        if len(raw) <= self._message_fields * LEAST_FIELD_BYTES:
            return False
        work = partial(Examiner.too_many_fields, raw=raw, kind=kind.full_name, most=self._message_fields)
        return await self._examination.run(tenant(context), len(raw), work)

    async def _end(self, context: Context, error: BaseException, request_id: str, ended: Ended) -> NoReturn:
        """End a call by what its handler raised. A cancellation is the client's or its deadline's."""
        if not isinstance(error, Exception):
            left = context.time_remaining()
            late = left is not None and left <= 0
            ended(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED)
            raise error
        api_error = to_api_error(error, request_id)
        ended(api_error.code)
        self._refusals.note(api_error.reason, context.peer())
        await abort(context, api_error, request_id)
        raise AssertionError("abort raises")


def _malformed(text: str) -> ApiError:
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE", text)


def _settle_id(request: Any, given: str) -> str:
    """The request's own id, else the given one, which is then written into the request."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name:
        return given
    request.request_id = request.request_id or given
    return request.request_id if good_request_id(request.request_id) else given
