"""The way of an HTTP request to its endpoint and back: its id, its caller, its body, and failures in OpenAI's form."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cluster.gateway.auth import Caller, admit, machine
from cluster.gateway.errors import ApiError, ErrorKind, exhausted, to_api_error
from cluster.gateway.examination.pool import SMALL_BYTES
from cluster.gateway.openai.failures import Failure, body_of, response_of
from cluster.gateway.places import Places
from cluster.gateway.validation import good_request_id
from cluster.observe.refusals import Refusals, Reluctance
from cluster.settings.sections import LimitsSection
from cluster.settings.tokens import Scope, TokenFile

REQUEST_ID = "x-request-id"
API_KEY = "x-api-key"  # where Anthropic's clients, and some editors, put a token
Endpoint = Callable[[Request], Awaitable[Response]]


class Guard:
    """It admits callers as gRPC does, with the same tokens and scope."""

    def __init__(self, refusals: Refusals, tokens: TokenFile | None, message_bytes: int, limits: LimitsSection) -> None:
        """Without `tokens` everybody may ask; a body may have `message_bytes`."""
        self._refusals, self._reluctance, self._tokens = refusals, Reluctance(), tokens
        self._message_bytes = message_bytes
        self._long_bodies = Places(limits.uploads, "TOO_MANY_UPLOADS", "long bodies")

    def __call__(self, endpoint: Endpoint, failure: Failure = body_of) -> Endpoint:
        """The endpoint for admitted callers: its failures become the bodies that `failure` makes, OpenAI's unless it is
        given; its answer bears the request's id.
        """

        async def guarded(request: Request) -> Response:
            given = request.headers.get(REQUEST_ID, "")
            request.state.id = given if good_request_id(given) else secrets.token_hex(16)
            try:
                request.state.caller = self._admit(request)
            except ApiError as error:
                response = self._failed(error, request, failure)
                await self._reluctance.hold(machine(peer(request)), asyncio.get_running_loop().time())
                return response
            try:
                response = await endpoint(request)
            except ClientDisconnect:  # before its body had come whole
                return Response()
            except Exception as error:
                return self._failed(error, request, failure)
            response.headers.setdefault(REQUEST_ID, request.state.id)
            return response

        return guarded

    def _failed(self, error: Exception, request: Request, failure: Failure) -> Response:
        return response_of(self.told(error, request), request.state.id, failure)

    def told(self, error: Exception, request: Request) -> ApiError:
        """The failure as the client is told it, noted."""
        api_error = to_api_error(error, request.state.id)
        self._refusals.note(api_error.reason, peer(request))
        return api_error

    async def body(self, request: Request) -> bytes:
        """The whole body, of JSON as far as its headers say."""
        _check_type(request)
        raw = bytearray()
        with contextlib.ExitStack() as place:
            async for part in request.stream():
                if len(raw) <= SMALL_BYTES < len(raw) + len(part):
                    place.enter_context(self._long_bodies)
                raw += part
                if len(raw) > self._message_bytes:
                    raise exhausted("MESSAGE_TOO_LARGE", f"the body has more than {self._message_bytes} bytes")
            return bytes(raw)

    def _admit(self, request: Request) -> Caller:
        if self._tokens is None:
            return Caller(peer=peer(request))
        given = request.headers.getlist("authorization")
        given = given or [f"Bearer {key}" for key in request.headers.getlist(API_KEY)]
        holder = admit(given, Scope.INFERENCE, self._tokens.find)
        return Caller(holder.name, holder.highest_priority, peer(request))


def peer(request: Request) -> str:
    return f"{request.client.host}:{request.client.port}" if request.client else ""


def _check_type(request: Request) -> None:
    """A page of any origin may have a browser send a body that is not called JSON, without asking first, and to a
    server on the same machine. curl calls its body a form unless it is told otherwise, but sends no `Origin`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return
    if kind not in ("", "application/x-www-form-urlencoded") or "origin" in request.headers:
        text = f"the body is {kind[:100] or 'without a type'!r}: send it as `Content-Type: application/json`"
        raise ApiError(ErrorKind.INVALID, "UNSUPPORTED_MEDIA_TYPE", text)
