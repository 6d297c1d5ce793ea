"""Failures without a protocol: their kind, and what the client is told. Each door maps them to its own statuses.

An exception's text never leaves the server; what clients see is written here or where the failure is raised.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from cluster.engine.engine import EngineStopped, QueueFull
from cluster.engine.generation import GenerationFailed

log = logging.getLogger("eightwinds.gateway")

LONGEST_TEXT = 1000


class Kind(Enum):
    """What went wrong, as far as a protocol's status codes tell failures apart."""

    INVALID = auto()
    UNAUTHENTICATED = auto()
    FORBIDDEN = auto()
    NOT_FOUND = auto()
    PRECONDITION = auto()  # the server does not run in the way that the request needs
    ABORTED = auto()  # the same request may succeed after a look at what has changed, or with another seed
    EXHAUSTED = auto()
    UNAVAILABLE = auto()
    INTERNAL = auto()


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field, by its path in the request, and what to change."""

    field: str
    description: str


@dataclass(eq=False)  # without slots: a pickle of an exception carries its arguments and its __dict__
class ApiError(Exception):
    """A failure as the client is told it: kind, UPPER_SNAKE reason, sentence, and details.

    `violations` are the wrong fields, `retry_seconds` says when another try is worth it, and `model` is the one that
    is not served.
    """

    kind: Kind
    reason: str
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    retry_seconds: float | None = None
    model: str = ""


def invalid(violations: Sequence[Violation], metadata: Mapping[str, str] | None = None) -> ApiError:
    """All wrong fields of a request at once."""
    text = cut("; ".join(f"{v.field}: {v.description}" for v in violations), LONGEST_TEXT)
    return ApiError(Kind.INVALID, "INVALID_FIELDS", text, metadata or {}, violations)


def unknown_model(name: str, served: str) -> ApiError:
    """The request names a model that is not served."""
    name = cut(name, 100)
    text = f"model {name!r} is not served here; use {served!r} or leave it empty"
    return ApiError(Kind.NOT_FOUND, "MODEL_NOT_FOUND", text, model=name)


def unavailable(reason: str, text: str, retry_seconds: float) -> ApiError:
    """Not now: the server starts or drains, or an expert has no replica."""
    return ApiError(Kind.UNAVAILABLE, reason, text, retry_seconds=retry_seconds)


def exhausted(reason: str, text: str, retry_seconds: float | None = None) -> ApiError:
    """Too much: at the moment, or, without `retry_seconds`, however often the request is sent."""
    return ApiError(Kind.EXHAUSTED, reason, text, retry_seconds=retry_seconds)


def cut(text: str, length: int) -> str:
    """The text, or its beginning with three dots in at most `length` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


def to_api_error(error: Exception, request_id: str) -> ApiError:
    """The one mapping from an exception to what the client is told; an unforeseen exception is logged."""
    match error:
        case ApiError():
            return error
        case QueueFull():
            return exhausted("QUEUE_FULL", "the queue is full; send the request again later", error.retry_seconds)
        case EngineStopped() | GenerationFailed(kind="stopped"):
            return unavailable("ENGINE_STOPPED", "the server is shutting down or its engine has ended", 5.0)
        case GenerationFailed(kind="unavailable"):
            return unavailable("EXPERT_UNAVAILABLE", "a part of the model did not answer in its grace", 5.0)
        case GenerationFailed(kind="slow"):
            text = "more of the answer was waiting to be read than is kept; read the stream faster, or ask for less"
            return exhausted("CLIENT_TOO_SLOW", text, 1.0)
        case GenerationFailed(kind="numeric"):
            text = "the model gave NaN or infinity for this prompt; the server's log names the layer"
            return ApiError(Kind.INTERNAL, "NUMERIC_FAULT", text)
        case GenerationFailed(kind="constraint"):
            text = "the text came to a place from which none that is allowed can be reached; try another seed"
            return ApiError(Kind.ABORTED, "CONSTRAINT_FAILED", text)
    log.error("request %s failed", request_id, exc_info=error)
    return ApiError(Kind.INTERNAL, "INTERNAL", "the server failed; its log has the reason under this request id")
