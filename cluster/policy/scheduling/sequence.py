"""One output of a request, validated, tokenised and with every default filled in, and how far it is."""

from dataclasses import dataclass, field

from cluster.policy.scheduling.limits import first_visible
from model.batch import Alternatives, NewSequence, SampledToken, SamplingParams

Routing = tuple[tuple[int, ...], ...]  # [layer][expert]: the rows that each expert ran


def added(total: Routing, counts: Routing) -> Routing:
    """Both together, layer by layer; an empty `total` is nothing so far."""
    pairs = zip(total, counts, strict=True) if total else ()
    return tuple(tuple(map(sum, zip(*pair, strict=True))) for pair in pairs) or counts


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """`prompt_ids` are run as they are; at most `max_tokens` are sampled; `stop_ids` end the sequence, but not before
    `sampling.min_tokens`. Higher `priority` runs first, and among equals the `client` that was served least. `routing`
    asks for what the experts ran for it, `prompt_logprobs` for the log-probabilities of the prompt's tokens with that
    many alternatives (-1: none). The sequence finds only cached pages of its `tenant`: the authenticated caller, ""
    where callers are not authenticated or share the cache. `sequence_id` names it for `abort`; the outputs of one
    request have the same prompt and `family`, so that their prompt is run once. Both are empty until it is split.
    """

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    priority: int = 0
    routing: bool = False
    client: str = ""
    tenant: str = ""
    prompt_logprobs: int = -1
    sequence_id: str = ""
    family: str = ""


@dataclass(slots=True, eq=False)
class Sequence:
    """`token_ids` is the prompt and what was sampled; positions below `computed` have their keys and values in the
    cache. `pages[i]` holds positions [i * page_size, (i + 1) * page_size); the first `dropped` entries lie wholly
    before the sliding window and have been given back. `arrival` is its number in the order of arrival, `slot` is -1
    while it waits.
    """

    request: SequenceRequest
    token_ids: list[int] = field(init=False)
    arrival: int = -1
    slot: int = -1
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    dropped: int = 0
    planned: int = 0  # tokens of the step under way ...
    ahead: int = 0  # ... and of the one behind it, if that was planned already
    page_keys: list[bytes] = field(default_factory=list)  # of its full pages, as far as they were needed
    cached: int | None = None  # prompt tokens that were found in the cache when it first entered
    scores: list[tuple[float, Alternatives]] = field(default_factory=list)  # of the prompt's tokens from the second on
    routing: Routing = ()  # since its last token, if its request asks for it
    losses: int = 0  # heads that ended in a step of it since its last token

    def __post_init__(self) -> None:
        self.token_ids = list(self.request.prompt_ids)

    @property
    def id(self) -> str:
        return self.request.sequence_id

    @property
    def prompt_length(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def rank(self) -> tuple[int, int]:
        """Lower goes first: by priority, then by arrival."""
        return -self.request.priority, self.arrival

    @property
    def output_length(self) -> int:
        return len(self.token_ids) - self.prompt_length

    @property
    def pending(self) -> int:
        """Known tokens that have not been run."""
        return len(self.token_ids) - self.computed

    @property
    def held_pages(self) -> list[int]:
        return self.pages[self.dropped :]

    @property
    def needs_scores(self) -> bool:
        """Whether log-probabilities of its prompt are still to come: then its prompt must be run."""
        return self.request.prompt_logprobs >= 0 and len(self.scores) < self.prompt_length - 1

    def pages_needed(self, tokens: int, page_size: int) -> int:
        return max(0, -(-(self.computed + tokens) // page_size) - len(self.pages))

    def outdated(self, window: int | None, page_size: int) -> list[int]:
        """Pages that no query from position `computed` on can see; they are forgotten here."""
        gone = self.pages[self.dropped : first_visible(self.computed, window, page_size)]
        self.dropped += len(gone)
        return gone

    def score(self, start: int, scores: tuple[tuple[float, Alternatives], ...]) -> None:
        """Add log-probabilities of the prompt's tokens from position `start` on; known ones came again."""
        self.scores += scores[len(self.scores) + 1 - start :]

    def append(self, token: SampledToken) -> "NextToken":
        self.token_ids.append(token.token_id)
        self.losses = 0
        enough = self.output_length >= self.request.sampling.min_tokens
        stopped = enough and token.token_id in self.request.stop_ids
        exhausted = not stopped and self.output_length >= self.request.max_tokens
        routing, self.routing = self.routing, ()
        return NextToken(self, token, stopped, exhausted, routing)

    def admission(self) -> NewSequence:
        r, tokens = self.request, tuple(self.token_ids)
        scores = r.prompt_logprobs if self.needs_scores else -1
        return NewSequence(self.slot, tokens, self.prompt_length, r.sampling, r.routing, scores)

    def forget_cache(self) -> list[int]:
        """Return to the state before the first step, tokens apart; answers the pages it held, the last ones first."""
        pages = self.held_pages[::-1]
        self.slot = -1
        self.computed = self.dropped = self.planned = self.ahead = 0
        self.pages = []
        return pages


@dataclass(frozen=True, slots=True)
class NextToken:
    """A token sampled for a sequence; it is the last if it `stopped` it (a stop id) or `exhausted` max_tokens.
    `routing` counts from the token before, if it was asked for.
    """

    sequence: Sequence
    token: SampledToken
    stopped: bool
    exhausted: bool
    routing: Routing = ()
