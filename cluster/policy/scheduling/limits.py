"""The bounds of a step, and of the queue."""

from dataclasses import dataclass

_SHARE = 8  # a client may hold this many times the room that is left in the queue


@dataclass(frozen=True, slots=True)
class Limits:
    """Sequences in slots, tokens per step, KV pages and their size, the sliding window. `prefix_caching` looks for what
    earlier sequences left in the cache.
    """

    max_running: int
    max_tokens_per_step: int
    page_count: int
    page_size: int
    window: int | None = None
    prefix_caching: bool = True

    def pages_of(self, tokens: int) -> int:
        """The most pages that a sequence of `tokens` ever holds at once: at most ceil((W + chunk) / page) + 1."""
        if self.window is not None:
            tokens = min(tokens, self.window + self.max_tokens_per_step + self.page_size)
        return -(-tokens // self.page_size)

    @property
    def most_tokens(self) -> int:
        """The longest sequence that can run, alone; 2**31 - 1 where a window bounds what any of them holds."""
        endless = (1 << 31) - 1
        return endless if self.fit(endless) else self.page_count * self.page_size

    def fit(self, tokens: int) -> bool:
        """Whether a sequence of this many tokens can run at all, alone."""
        return self.pages_of(tokens) <= self.page_count


def first_visible(position: int, window: int | None, page_size: int) -> int:
    """The first page that a query at `position` or later sees: key j is seen from i while j > i - window.
    Example: page_size 4, window 6, position 14: key 9 is the first one seen, so pages 0 and 1 are not.
    """
    return 0 if window is None else max(0, (position - window + 1) // page_size)


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much may wait: sequences, and the tokens of their prompts."""

    sequences: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much waits: sequences, their tokens, the sequences of the asking client; and the slots free for them."""

    sequences: int
    tokens: int
    of_client: int
    free_slots: int


def admits(bounds: QueueBounds, backlog: Backlog, tokens: int) -> bool:
    """Whether a request with this many prompt tokens is taken: at least one of its outputs must fit the queue; not all,
    because a request for several could else never enter. An empty queue admits prompts of any length. The bound for
    one client shrinks with the room that is left (the dynamic thresholds of Choudhury and Hahne 1998): one alone may
    fill eight ninths of a large queue, and there is always a place for a client that asks seldom.
    """
    room = bounds.sequences + backlog.free_slots - backlog.sequences
    if room <= 0 or backlog.of_client >= _SHARE * room:
        return False
    return backlog.sequences <= backlog.free_slots or backlog.tokens + tokens <= bounds.tokens
