"""Failures without a protocol: their kind, and what the client is told, which is never an exception's text. Each door
maps them to its own statuses.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeVar

from cluster.engine.engine import EngineStopped, QueueFull
from cluster.engine.generation import GenerationFailed

log = logging.getLogger("eightwinds.gateway")

T = TypeVar("T")

LONGEST_TEXT = 1000
_MOST_VIOLATIONS = 1000  # a status names fewer


class ErrorKind(Enum):
    """As far as a protocol's status codes tell failures apart."""

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
    """A failure as the client is told it: kind, UPPER_SNAKE reason, sentence, and details. `retry_seconds` says when
    another try is worth it, `model` is one that is not served.
    """

    kind: ErrorKind
    reason: str
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    retry_seconds: float | None = None
    model: str = ""


def invalid(violations: Sequence[Violation], metadata: Mapping[str, str] | None = None) -> ApiError:
    text = cut("; ".join(f"{v.field}: {v.description}" for v in violations), LONGEST_TEXT)
    return ApiError(ErrorKind.INVALID, "INVALID_FIELDS", text, metadata or {}, violations)


class Violations:
    """Gathers the wrong fields of one request, so that the client is told of all of them at once."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, path: str, text: str) -> None:
        """Add a field by its path in the request; `text` says what to change."""
        if len(self._found) < _MOST_VIOLATIONS:
            self._found.append(Violation(path, text))

    def unless(self, good: bool, path: str, text: str) -> None:
        if not good:
            self.add(path, text)

    def ids(self, ids: list[int], path: str, count: int) -> None:
        """Add the first id that is not one of the vocabulary's `count` ids."""
        bad = next((i for i, token in enumerate(ids) if not 0 <= token < count), None)
        if bad is not None:
            self.add(f"{path}[{bad}]", f"is {ids[bad]}, but ids are 0 to {count - 1}")

    def attempt(self, path: str, work: Callable[[], T], otherwise: T) -> T:
        """The result of `work`, or `otherwise` after its ValueError, whose text is written for clients."""
        try:
            return work()
        except ValueError as error:
            self.add(path, str(error))
            return otherwise

    def raise_any(self) -> None:
        if self._found:
            raise invalid(self._found)


def check_model(name: str, names: Sequence[str]) -> None:
    """ApiError unless the name of a request's model is one of these, or empty."""
    if name and name not in names:
        raise unknown_model(name, names[0])


def unknown_model(name: str, served: str) -> ApiError:
    name = cut(name, 100)
    text = f"model {name!r} is not served here; use {served!r} or leave it empty"
    return ApiError(ErrorKind.NOT_FOUND, "MODEL_NOT_FOUND", text, model=name)


def unavailable(reason: str, text: str, retry_seconds: float) -> ApiError:
    """Not now: the server starts or drains, or an expert has no replica."""
    return ApiError(ErrorKind.UNAVAILABLE, reason, text, retry_seconds=retry_seconds)


def exhausted(reason: str, text: str, retry_seconds: float | None = None) -> ApiError:
    """Too much: at the moment, or, without `retry_seconds`, however often the request is sent."""
    return ApiError(ErrorKind.EXHAUSTED, reason, text, retry_seconds=retry_seconds)


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
            return ApiError(ErrorKind.INTERNAL, "NUMERIC_FAULT", text)
        case GenerationFailed(kind="constraint"):
            text = "the text came to a place from which none that is allowed can be reached; try another seed"
            return ApiError(ErrorKind.ABORTED, "CONSTRAINT_FAILED", text)
    log.error("request %s failed", request_id, exc_info=error)
    return ApiError(ErrorKind.INTERNAL, "INTERNAL", "the server failed; its log has the reason under this request id")
