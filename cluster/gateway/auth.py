"""Callers, for any door: it hands a `Caller` to each handler, and admits bearer tokens if the server asks for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.gateway.errors import ApiError, ErrorKind
from cluster.settings.tokens import Holder, Scope

MOST_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """The other end of a call: `name` is the token's holder, "" where no tokens are asked for; `peer` its address."""

    name: str = ""
    highest_priority: int = MOST_PRIORITY
    peer: str = ""

    @property
    def tenant(self) -> str:
        """The party that the call's work counts for: the token's holder, else the machine that the call comes from."""
        return self.name or machine(self.peer)


ANYBODY = Caller()


def machine(peer: str) -> str:
    return peer.rpartition(":")[0]


def admit(authorization: Sequence[str], scope: Scope | None, find: Callable[[str], Holder | None]) -> Holder:
    """The holder, as `find` knows it, of the one token in a call's `authorization` headers; raises ApiError without a
    known token, or if it lacks the scope.
    """
    scheme, _, token = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        text = "send `authorization: Bearer TOKEN`, once, as metadata of the call or header of the request"
        raise ApiError(ErrorKind.UNAUTHENTICATED, "TOKEN_MISSING", text)
    holder = find(token)
    if holder is None:
        text = "the token is not known here; ask the operator for one"
        raise ApiError(ErrorKind.UNAUTHENTICATED, "TOKEN_UNKNOWN", text)
    if scope is not None and scope not in holder.scopes:
        text = f"the token of {holder.name!r} lacks the scope {scope.value}, which this method needs"
        raise ApiError(ErrorKind.FORBIDDEN, "SCOPE_MISSING", text, {"scope": scope.value})
    return holder
