"""Whether one more request may wait."""

from dataclasses import dataclass

_SHARE = 8  # a client may hold this many times the room that is left


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """What may wait: sequences, and the tokens of their prompts."""

    sequences: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: sequences and their tokens, the sequences of the asking client, and slots that are free for them."""

    sequences: int
    tokens: int
    of_client: int
    free_slots: int


def admits(bounds: QueueBounds, backlog: Backlog, tokens: int) -> bool:
    """Whether a request with this many prompt tokens is taken.

    Admitted if at least one of its outputs fits the queue (or a request for several could never enter). An empty queue
    admits a prompt of any length. The bound for one client shrinks with the room that is left (the dynamic thresholds
    of Choudhury and Hahne 1998): one alone may fill eight ninths of a large queue, and there is always a place for a
    client that asks seldom.
    """
    room = bounds.sequences + backlog.free_slots - backlog.sequences
    if room <= 0 or backlog.of_client >= _SHARE * room:
        return False
    return backlog.sequences <= backlog.free_slots or backlog.tokens + tokens <= bounds.tokens
