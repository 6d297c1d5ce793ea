"""What the scheduler knows of one sequence. Pure."""

from dataclasses import dataclass, field

from cluster.policy.scheduling.prefix import first_visible
from model.batch import Alternatives, NewSequence, SampledToken, SamplingParams


@dataclass(slots=True, eq=False)
class Sequence:
    """A sequence and where it stands.

    `token_ids` is the prompt and what was drawn; positions below `computed` have their keys and values in the
    cache. `pages[i]` holds positions [i * page_size, (i + 1) * page_size); the first `dropped` entries lie wholly
    before the sliding window and have been given back. Sequences of one `family` have the same prompt. `client` is
    whom it runs for, `tenant` whose cached pages it may find, `arrival` its number in the order of coming.
    """

    key: str
    token_ids: list[int]
    prompt_length: int
    sampling: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int]
    priority: int = 0
    trace: bool = False
    client: str = ""
    family: str = ""
    prompt_logprobs: int = -1
    tenant: str = ""
    arrival: int = -1
    slot: int = -1
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    dropped: int = 0
    planned: int = 0  # tokens of the step under way
    page_keys: list[bytes] = field(default_factory=list)  # of its full pages, as far as they were needed
    cached: int | None = None  # prompt tokens that were found in the cache when it first entered
    scores: list[tuple[float, Alternatives]] = field(default_factory=list)  # of the prompt's tokens from the second on
    routing: tuple[tuple[int, ...], ...] = ()  # what experts ran since the last token, by layer; traced ones only
    losses: int = 0  # heads that ended in a step of it since its last token

    @property
    def rank(self) -> tuple[int, int]:
        """Lower goes first: by priority, then by arrival."""
        return -self.priority, self.arrival

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
        """Pages it holds."""
        return self.pages[self.dropped :]

    @property
    def needs_scores(self) -> bool:
        """Whether log-probabilities of its prompt are still to come: then its prompt must be run."""
        return self.prompt_logprobs >= 0 and len(self.scores) < self.prompt_length - 1

    def pages_needed(self, tokens: int, page_size: int) -> int:
        """Further pages for `tokens` more positions."""
        return max(0, -(-(self.computed + tokens) // page_size) - len(self.pages))

    def outdated(self, window: int | None, page_size: int) -> list[int]:
        """Pages that no query from position `computed` on can see; they are forgotten here."""
        gone = self.pages[self.dropped : first_visible(self.computed, window, page_size)]
        self.dropped += len(gone)
        return gone

    def count_routing(self, counts: tuple[tuple[int, ...], ...]) -> None:
        """Add a step's counts; a long prompt takes several steps until its first token."""
        pairs = zip(self.routing, counts, strict=True) if self.routing else ()
        self.routing = tuple(tuple(map(sum, zip(*pair, strict=True))) for pair in pairs) or counts

    def score(self, start: int, scores: tuple[tuple[float, Alternatives], ...]) -> None:
        """Add log-probabilities of the prompt's tokens from position `start` on; known ones came again."""
        self.scores += scores[len(self.scores) + 1 - start :]

    def admission(self) -> NewSequence:
        """What the head must be told when the sequence enters its slot."""
        wanted = self.prompt_logprobs if self.needs_scores else -1
        return NewSequence(self.slot, tuple(self.token_ids), self.prompt_length, self.sampling, self.trace, wanted)

    def forget_cache(self) -> list[int]:
        """Return to the state before the first step, tokens apart; answers the pages it held, the last ones first."""
        pages = self.held_pages[::-1]
        self.slot, self.computed, self.pages, self.dropped, self.planned = -1, 0, [], 0, 0
        return pages


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token drawn for a sequence; it is the last if it `stopped` it (a stop id) or `exhausted` max_tokens."""

    sequence: Sequence
    token: SampledToken
    stopped: bool
    exhausted: bool
    routing: tuple[tuple[int, ...], ...] = ()  # what each layer's experts ran for it since the token before, if traced
