"""Failures as OpenAI's clients read them: a status, headers that say when to try again, and one JSON object.

Clients recognise a prompt that is too long by its words alone, so these are OpenAI's. They wait as `Retry-After` says
up to 120 s; with a longer one they would not try again at all.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse

from cluster.gateway.errors import LONGEST_TEXT, ApiError, ErrorKind, cut

_STATUS = {
    ErrorKind.INVALID: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.PRECONDITION: 409,
    ErrorKind.ABORTED: 422,
    ErrorKind.EXHAUSTED: 429,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.INTERNAL: 500,
}
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_TYPES |= {413: "invalid_request_error", 429: "rate_limit_error", 503: "overloaded_error"}
_LONGEST_WAIT = 120
Failure = Callable[[ApiError], dict[str, Any]]
# The gateway's paths that are named otherwise here; others of these sections have the client's name in them.
_SECTIONS = ("sampling", "stopping", "output")
_PARAMS = {
    "output.logprobs": "top_logprobs",
    "constraint.json_schema": "response_format",
    "constraint": "response_format",
}
_PARAMS |= {"prompt.text": "prompt", "prompt.token_ids.ids": "prompt"}


def status_of(error: ApiError) -> int:
    """EXHAUSTED without a time is too much however often it is sent."""
    return 413 if error.kind is ErrorKind.EXHAUSTED and error.retry_seconds is None else _STATUS[error.kind]


def body_of(error: ApiError) -> dict[str, Any]:
    code, text = error.reason.lower(), error.text
    if error.violations:
        text = cut("; ".join(f"{param_of(v.field)}: {v.description}" for v in error.violations), LONGEST_TEXT)
    if "contextLength" in error.metadata:
        code, text = "context_length_exceeded", _overflow(error.metadata, text)
    param = param_of(error.violations[0].field) if error.violations else "model" if error.model else None
    kind = _TYPES.get(status_of(error), "server_error")
    return {"error": {"message": text, "type": kind, "param": param, "code": code}}


def response_of(error: ApiError, request_id: str, failure: Failure = body_of) -> JSONResponse:
    headers = {"x-request-id": request_id}
    if error.retry_seconds is not None:
        seconds = min(max(1, math.ceil(error.retry_seconds)), _LONGEST_WAIT)
        headers |= {"Retry-After": str(seconds), "retry-after-ms": str(1000 * seconds)}
    if error.kind is ErrorKind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(failure(error), status_of(error), headers)


def param_of(path: str) -> str:
    """The name that a client knows a field by. Example: `sampling.logit_bias[7]` gives `logit_bias`."""
    plain = path.partition("[")[0]
    section, _, name = plain.partition(".")
    if plain.startswith("prompt.chat.tool"):
        return "tools" if plain.startswith("prompt.chat.tools") else "tool_choice"
    if plain.startswith("prompt.chat"):
        return "messages"
    return _PARAMS.get(plain) or (name if section in _SECTIONS else path)


def _overflow(metadata: Mapping[str, str], text: str) -> str:
    prompt, most = int(metadata["promptTokens"]), int(metadata["contextLength"])
    asked = int(metadata.get("maxTokens", 1))
    return (
        f"This model's maximum context length is {most} tokens. However, you requested {prompt + asked} tokens "
        f"({prompt} in the messages, {asked} in the completion). ({text})"
    )
