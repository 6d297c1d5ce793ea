"""Who calls: one interceptor that asks for a bearer token before anything of the message is taken in."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import contextvars
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc

from cluster.gateway.errors import ApiError, Context
from cluster.gateway.rpc.refuser import Refuser, address
from cluster.observe.refusals import Refusals
from cluster.settings.tokens import Caller, Scope

_caller: contextvars.ContextVar[Caller | None] = contextvars.ContextVar("caller", default=None)

_HEADER = "authorization"
_OPEN = "/grpc.health.v1.Health/"  # load balancers probe it without a token
MOST_PRIORITY = 100
_SCOPES = {"/eightwinds.v1.InferenceService/": Scope.INFERENCE, "/eightwinds.v1.ClusterService/": Scope.CLUSTER}


class Tokens(Protocol):
    """Where tokens are looked up; see `cluster.settings.tokens.TokenFile`."""

    def find(self, token: str) -> Caller | None:
        """Whose token it is."""


def caller() -> str:
    """The name of whoever makes the call being handled; empty where no tokens are asked for."""
    found = _caller.get()
    return found.name if found else ""


def highest_priority() -> int:
    """What a request of theirs may have at most."""
    found = _caller.get()
    return found.highest_priority if found else MOST_PRIORITY


def tenant(context: Context) -> str:
    """Whom the work of a call counts for: who calls, or else the machine that it comes from."""
    return caller() or address(context)


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Refuses a call without a known token (UNAUTHENTICATED) or without its scope (PERMISSION_DENIED).

    Health is open; what belongs to no service of ours, such as reflection, needs any token. With `tokens` None
    everything is open.
    """

    def __init__(self, tokens: Tokens | None, refusals: Refusals | None = None) -> None:
        self._tokens, self._refuser = tokens, Refuser(refusals or Refusals())

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Settle who calls; a refused call's handler is replaced by one that says why."""
        handler = await continuation(details)
        if handler is None or self._tokens is None or details.method.startswith(_OPEN):
            return handler
        try:
            found = _authenticate(details, self._tokens)
            _authorize(details.method, found)
        except ApiError as error:
            return self._refuser.handler(handler, error)
        _caller.set(found)  # a call is one task, so this is seen by its handler alone
        return handler


def _authenticate(details: grpc.HandlerCallDetails, tokens: Tokens) -> Caller:
    given = [value for key, value in details.invocation_metadata or () if key == _HEADER]
    scheme, _, token = str(given[0]).partition(" ") if len(given) == 1 else ("", "", "")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        text = "send one metadata entry `authorization: Bearer TOKEN`"
        raise ApiError(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", text)
    found = tokens.find(token)
    if found is None:
        text = "the token is not known here; ask the operator for one"
        raise ApiError(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN", text)
    return found


def _authorize(method: str, found: Caller) -> None:
    for prefix, scope in _SCOPES.items():
        if method.startswith(prefix) and scope not in found.scopes:
            text = f"the token of {found.name!r} lacks the scope {scope.value}, which this method needs"
            raise ApiError(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", text, {"scope": scope.value})
