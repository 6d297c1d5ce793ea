"""Whether one more request may wait. Pure."""

from dataclasses import dataclass

_SHARE = 8  # a client may hold this many times the room that is left


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """What may wait: sequences, and the tokens of their prompts."""

    sequences: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: sequences and their tokens, those of the client who asks, and slots that they will go to at once."""

    sequences: int
    tokens: int
    of_client: int
    free_slots: int


def admits(bounds: QueueBounds, backlog: Backlog, tokens: int) -> bool:
    """Whether a request with this many prompt tokens is taken.

    It is if there is room for one of its outputs, so that a request for several is not refused for ever; and where
    nothing waits, whatever its length. The bound for one client shrinks with the room that is left (the dynamic
    thresholds of Choudhury and Hahne 1998): one alone may fill eight ninths of a large queue, and there is always a
    place for who asks seldom.
    """
    room = bounds.sequences + backlog.free_slots - backlog.sequences
    if room <= 0 or backlog.of_client >= _SHARE * room:
        return False
    return backlog.sequences <= backlog.free_slots or backlog.tokens + tokens <= bounds.tokens
