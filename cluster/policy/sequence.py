"""What the scheduler knows of one sequence. Pure."""

from dataclasses import dataclass, field

from model.batch import NewSequence, SamplingParams


@dataclass(slots=True)
class Sequence:
    """A sequence and where it stands.

    `token_ids` is the prompt and what was drawn; positions below `computed` have their keys and values in the
    cache. `pages[i]` holds positions [i * page_size, (i + 1) * page_size); the first `dropped` entries lie wholly
    before the sliding window and have been given back.
    """

    key: str
    token_ids: list[int]
    prompt_length: int
    sampling: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int]
    priority: int = 0
    trace: bool = False
    slot: int = -1
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    dropped: int = 0
    planned: int = 0  # tokens of the step under way
    routing: tuple[tuple[int, ...], ...] = ()  # what experts ran since the last token, by layer; traced ones only

    @property
    def output_length(self) -> int:
        """Tokens drawn so far."""
        return len(self.token_ids) - self.prompt_length

    @property
    def pending(self) -> int:
        """Known tokens that have not been run."""
        return len(self.token_ids) - self.computed

    @property
    def held_pages(self) -> list[int]:
        """Pages it owns."""
        return self.pages[self.dropped :]

    def pages_needed(self, tokens: int, page_size: int) -> int:
        """Further pages for `tokens` more positions."""
        return max(0, -(-(self.computed + tokens) // page_size) - len(self.pages))

    def outdated(self, window: int | None, page_size: int) -> list[int]:
        """Pages that no query from position `computed` on can see; they are forgotten here.

        Key j is seen from i while j > i - window: page p is done once its last row is at most computed - window.
        Example: page_size 4, window 6, computed 14: key 8 is the last unseen one, so pages 0 and 1 are done.
        """
        if window is None:
            return []
        done = max(0, (self.computed - window + 1) // page_size)
        gone = self.pages[self.dropped : done]
        self.dropped += len(gone)
        return gone

    def count_routing(self, counts: tuple[tuple[int, ...], ...]) -> None:
        """Add a step's counts; a long prompt takes several steps until its first token."""
        pairs = zip(self.routing, counts, strict=True) if self.routing else ()
        self.routing = tuple(tuple(map(sum, zip(*pair, strict=True))) for pair in pairs) or counts

    def admission(self) -> NewSequence:
        """What the head must be told when the sequence enters its slot."""
        return NewSequence(self.slot, tuple(self.token_ids), self.prompt_length, self.sampling, self.trace)

    def forget_cache(self) -> list[int]:
        """Return to the state before the first step, tokens apart; answers the pages it held."""
        pages = self.held_pages
        self.slot, self.computed, self.pages, self.dropped, self.planned = -1, 0, [], 0, 0
        return pages
