"""A dialect: how its bodies are read, and how answers, streams and failures are told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cluster.gateway.openai.failures import Failure
from cluster.gateway.openai.requests import Read, Wanted, chat_wanted, completion_wanted
from cluster.gateway.openai.streams import DONE, event

Json = dict[str, Any]
Values = Mapping[str, Any]


class Teller(Protocol):
    """Tells one answer: `whole`, or as the texts of a stream's events."""

    def whole(self, completion: Json) -> Json:
        """The answer that a whole completion makes."""

    def chunk(self, chunk: Json) -> str:
        """The events that a chunk of a streamed completion makes, maybe none."""

    def failed(self, told: Json) -> str:
        """The event of a failure in the middle of a stream; `told` is OpenAI's object of it."""

    def end(self) -> str:
        """The last events, after a failure, too."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """`teller` is given what was wanted. `failure` makes OpenAI's object of a failure into the dialect's."""

    read: Read
    teller: Callable[[Wanted], Teller]
    failure: Failure = dict


class Plain:
    """OpenAI's own."""

    def __init__(self, wanted: Wanted) -> None:
        pass

    def whole(self, completion: Json) -> Json:
        return completion

    def chunk(self, chunk: Json) -> str:
        return event(chunk)

    def failed(self, told: Json) -> str:
        return event(told)

    def end(self) -> str:
        return DONE


CHAT, COMPLETIONS = Dialect(chat_wanted, Plain), Dialect(completion_wanted, Plain)


def as_chat(values: Values, chat: Json, request_id: str) -> Wanted:
    """The body of a `chat` completion, made of the `values` of another, as it is wanted: one choice, whose stream counts
    its tokens in every chunk.
    """
    shared = {name: values.get(name) for name in ("model", "temperature", "top_p", "stream")}
    wanted = chat_wanted(shared | chat, request_id)
    return replace(wanted, given=values, usage=True, running_usage=True, unknown=())
