"""Callers without a door: the token that admits one, and the party that a call's work counts for."""

import pytest

from cluster.gateway.auth import ANYBODY, Caller, admit, machine
from cluster.gateway.errors import ApiError, ErrorKind
from cluster.settings.tokens import Holder, Scope


def find(token: str) -> Holder | None:
    return Holder("alice", frozenset({Scope.INFERENCE}), 7) if token == "ew_a" else None


@pytest.mark.parametrize("header", ["Bearer ew_a", "bearer ew_a", "BEARER  ew_a "])
@pytest.mark.parametrize("scope", [Scope.INFERENCE, None])
def test_a_known_token_with_the_scope_is_admitted(header: str, scope: Scope | None) -> None:
    assert admit([header], scope, find).name == "alice"


@pytest.mark.parametrize(
    ("headers", "kind", "reason"),
    [
        ([], ErrorKind.UNAUTHENTICATED, "TOKEN_MISSING"),
        (["Bearer ew_a", "Bearer ew_a"], ErrorKind.UNAUTHENTICATED, "TOKEN_MISSING"),
        (["ew_a"], ErrorKind.UNAUTHENTICATED, "TOKEN_MISSING"),
        (["Basic ew_a"], ErrorKind.UNAUTHENTICATED, "TOKEN_MISSING"),
        (["Bearer ew_b"], ErrorKind.UNAUTHENTICATED, "TOKEN_UNKNOWN"),
        (["Bearer ew_a"], ErrorKind.FORBIDDEN, "SCOPE_MISSING"),
    ],
)
def test_other_calls_are_refused(headers: list[str], kind: ErrorKind, reason: str) -> None:
    with pytest.raises(ApiError) as caught:
        admit(headers, Scope.CLUSTER, find)
    assert (caught.value.kind, caught.value.reason) == (kind, reason)


def test_work_counts_for_the_name_or_else_for_the_machine() -> None:
    assert Caller("alice", peer="ipv4:10.0.0.1:5000").tenant == "alice"
    one, other = (Caller(peer=f"ipv4:10.0.0.1:{port}").tenant for port in (5000, 5001))
    assert one == other == machine("ipv4:10.0.0.1:5000") == "ipv4:10.0.0.1"


def test_without_tokens_any_priority_is_allowed() -> None:
    assert (ANYBODY.name, ANYBODY.highest_priority) == ("", 100)
