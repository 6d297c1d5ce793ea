"""A dialect: how its bodies are read, and how answers, streams and failures are told."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cluster.gateway.errors import ApiError, Violation, invalid
from cluster.gateway.openai.body import Body
from cluster.gateway.openai.failures import Failure, body_of
from cluster.gateway.openai.requests import MOST_UNKNOWN, Read, Wanted, chat_wanted, completion_wanted
from cluster.gateway.openai.streams import DONE, event

Json = dict[str, Any]


class Teller(Protocol):
    """Tells one answer: `whole`, or as the texts of a stream's events, which may be empty."""

    def whole(self, completion: Json) -> Json:
        """The answer that a whole completion makes."""

    def begin(self, usage: Json) -> str:
        """Before anything has come; `usage` counts the prompt."""

    def chunk(self, chunk: Json) -> str:
        """For a chunk of a streamed completion."""

    def failed(self, error: ApiError) -> str:
        """For a failure on its way, after which only `end` is asked for."""

    def end(self) -> str:
        """The last ones."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """`teller` is given what was wanted and the completion's `id`, `created` and `model`. `failure` makes the body that
    tells a failure.
    """

    read: Read
    teller: Callable[[Wanted, Json], Teller]
    failure: Failure = body_of


class Plain:
    """OpenAI's own."""

    def __init__(self, wanted: Wanted, about: Json) -> None:
        pass

    def whole(self, completion: Json) -> Json:
        return completion

    def begin(self, usage: Json) -> str:
        return ""

    def chunk(self, chunk: Json) -> str:
        return event(chunk)

    def failed(self, error: ApiError) -> str:
        return event(body_of(error))

    def end(self) -> str:
        return DONE


CHAT, COMPLETIONS = Dialect(chat_wanted, Plain), Dialect(completion_wanted, Plain)


def as_chat(
    body: Body, chat: Json, request_id: str, names: Mapping[str, str], ignored: Collection[str], told: Json
) -> Wanted:
    """The body of a `chat` completion, made of a dialect's own, as it is wanted: one choice, whose stream counts its
    tokens in every chunk. Wrong fields of it are called by the dialect's `names`; `told` are those that its answer
    repeats.
    """
    body.found.raise_any()
    shared = {name: body.raw(name) for name in ("model", "temperature", "top_p", "stream")}
    unknown = tuple(sorted(set(body.unread()) - set(ignored)))[:MOST_UNKNOWN]
    try:
        wanted = chat_wanted(shared | chat, request_id)
    except ApiError as error:
        raise invalid([Violation(_named(v.field, names), v.description) for v in error.violations]) from None
    return replace(wanted, told=told, usage=True, running_usage=True, unknown=unknown)


def _named(field: str, names: Mapping[str, str]) -> str:
    """Places within a field that has another name are places of the chat, and mean nothing to the client."""
    top = field.partition(".")[0].partition("[")[0]
    return names.get(top, field)
