"""The path of every call: its caller is found, its message read, and its handler's exception becomes its status.

Handlers are registered as those of many messages, because gRPC would read a single one whole before it calls them: the
caller is admitted first, and the message is then read within the bounds of `cluster.gateway.rpc.uploads`.
"""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor
from grpc import StatusCode

from cluster.gateway.auth import Caller, admit, machine
from cluster.gateway.errors import ApiError, ErrorKind, exhausted, to_api_error
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.examination.fields import LEAST_FIELD_BYTES, has_more_fields
from cluster.gateway.examination.pool import SMALL_BYTES, Examination
from cluster.gateway.places import Places
from cluster.gateway.rpc.status import CODES, REQUEST_ID_KEY, Context, abort, given_id, unless_gone
from cluster.gateway.rpc.uploads import Uploads
from cluster.gateway.validation import good_request_id
from cluster.observe.refusals import Refusals, Reluctance
from cluster.settings.sections import LimitsSection
from cluster.settings.tokens import Holder, Scope, TokenFile

_OPEN = "/grpc.health.v1.Health/"  # load balancers probe it without a token
_SCOPES = {"/eightwinds.v1.InferenceService": Scope.INFERENCE, "/eightwinds.v1.ClusterService": Scope.CLUSTER}
_MOST_HEADERS = 64  # of a call that is held back: a list that expands may take a megabyte


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a known token (UNAUTHENTICATED) or without its scope (PERMISSION_DENIED), hands request and
    caller of the others to their handlers, and turns exceptions into statuses.

    Health is open; a method of no service of ours, such as reflection, needs any token. Each call has a request id: the
    request's own, else `x-request-id`, else a new one. It is written into a request that has a field for it, and echoed
    in the metadata of the answer.
    """

    def __init__(
        self, message_bytes: int, limits: LimitsSection, pool: Examination, refusals: Refusals, tokens: TokenFile | None
    ) -> None:
        """The fields of a long message are counted in the `pool`. Without `tokens` every method is open."""
        self.handled: Counter[tuple[str, str, str]] = Counter()  # calls that ended: service, method, code
        self._message_bytes, self._message_fields = message_bytes, limits.message_fields
        self._uploads = Uploads(limits.uploads, limits.upload_s)
        self._places = Places(limits.calls, "TOO_MANY_CALLS", "calls")
        self._pool, self._refusals, self._tokens = pool, refusals, tokens
        self._refuser = Refuser(refusals)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap our own methods; health and reflection stay as they are."""
        handler = await continuation(details)
        if handler is None:
            return None
        try:
            holder = self._holder(details)
        except ApiError as error:
            return self._refuser.handler(error)
        if not details.method.startswith("/eightwinds."):
            return handler
        one: Any = handler.unary_unary
        stream: Any = handler.unary_stream
        call = partial(self._call, holder=holder, parse=handler.request_deserializer, method=details.method)

        async def answer_once(messages: object, context: Context) -> Any:
            async with call(context) as (request, caller, send_id):
                response = await one(request, caller)
                await send_id()
                return response

        async def answer_often(messages: object, context: Context) -> AsyncIterator[Any]:
            async with call(context) as (request, caller, send_id), aclosing(stream(request, caller)) as responses:
                first = await anext(responses, None)
                await send_id()
                if first is not None:
                    yield first
                async for response in responses:
                    yield response

        if stream is not None:
            return grpc.stream_stream_rpc_method_handler(answer_often, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer_once, None, handler.response_serializer)

    def _holder(self, details: grpc.HandlerCallDetails) -> Holder | None:
        if self._tokens is None or details.method.startswith(_OPEN):
            return None
        given = [str(value) for key, value in details.invocation_metadata or () if key == "authorization"]
        return admit(given, _SCOPES.get(details.method.rpartition("/")[0]), self._tokens.find)

    @asynccontextmanager
    async def _call(
        self, context: Context, holder: Holder | None, parse: Any, method: str
    ) -> AsyncIterator[tuple[Any, Caller, Callable[[], Awaitable[None]]]]:
        """A call from its message to its status: the request, the caller, and what tells the client its id."""
        caller, request_id = Caller(peer=context.peer()), given_id(context)
        if holder:
            caller = Caller(holder.name, holder.highest_priority, caller.peer)

        def ended(code: StatusCode) -> None:
            _, service, name = method.split("/")
            self.handled[service, name, code.name] += 1

        async def send_id() -> None:
            with unless_gone():
                await context.send_initial_metadata(((REQUEST_ID_KEY, request_id),))

        try:
            with self._places:
                request = await self._read(context, caller, parse)
                request_id = _settle_id(request, request_id)
                yield request, caller, send_id
            ended(StatusCode.OK)
        except asyncio.CancelledError:  # by the client, or by its deadline
            left = context.time_remaining()
            ended(StatusCode.DEADLINE_EXCEEDED if left is not None and left <= 0 else StatusCode.CANCELLED)
            raise
        except Exception as error:
            api_error = to_api_error(error, request_id)
            ended(CODES[api_error.kind])
            self._refusals.note(api_error.reason, caller.peer)
            await abort(context, api_error, request_id)

    async def _read(self, context: Context, caller: Caller, parse: Any) -> Any:
        """The call's one message; raises ApiError if it is none, too large or too slow."""
        with unless_gone():
            raw: Any = await self._uploads.read(caller.tenant, caller.peer, context.read)
        if raw is grpc.aio.EOF:
            raise ApiError(ErrorKind.INVALID, "MALFORMED_MESSAGE", "the call came without a message")
        if len(raw) > self._message_bytes:
            text = f"the message has {len(raw)} bytes; at most {self._message_bytes} are taken"
            raise exhausted("MESSAGE_TOO_LARGE", text)
        try:
            if await self._has_too_many_fields(raw, parse.__self__.DESCRIPTOR, caller):  # FromString of a class
                text = f"the message has too many fields: at most {self._message_fields} are taken, inner ones included"
                raise exhausted("MESSAGE_TOO_LARGE", text)
            return parse(raw)
        except ApiError:
            raise
        except Exception:  # protobuf's DecodeError, or UnicodeDecodeError from its string fields
            raise ApiError(ErrorKind.INVALID, "MALFORMED_MESSAGE", "the bytes are no message of this method") from None

    async def _has_too_many_fields(self, raw: bytes, kind: Descriptor, caller: Caller) -> bool:
        """Counting takes longer than parsing, but a parsed message may take a hundred times the memory of its bytes."""
        if len(raw) <= max(SMALL_BYTES, self._message_fields * LEAST_FIELD_BYTES):
            return has_more_fields(raw, kind, self._message_fields)
        work = partial(Examiner.too_many_fields, raw=raw, kind=kind.full_name, most=self._message_fields)
        return await self._pool.run(caller.tenant, len(raw), work)


class Refuser:
    """Ends calls with the reason; those of a flood late, so that a stranger waits, and runs out of the streams of its
    connection.
    """

    def __init__(self, refusals: Refusals) -> None:
        self._refusals, self._reluctance = refusals, Reluctance()

    def handler(self, error: ApiError) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that ends a call of any method, and reads nothing of its messages."""

        async def end(messages: object, context: Context) -> None:
            self._refusals.note(error.reason, context.peer())
            if len(context.invocation_metadata() or ()) <= _MOST_HEADERS:
                await self._reluctance.hold(machine(context.peer()), asyncio.get_running_loop().time())
            await abort(context, error, given_id(context))

        return grpc.stream_stream_rpc_method_handler(end)


def _settle_id(request: Any, given: str) -> str:
    """The request's own id, else the given one, which is then written into the request."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name:
        return given
    request.request_id = request.request_id or given
    return request.request_id if good_request_id(request.request_id) else given
