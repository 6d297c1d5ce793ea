"""A request as the engine sees it: validated, tokenised, with every default filled in. Plain data."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cluster.policy.scheduling.sequence import Sequence
from model.batch import Alternatives, SamplingParams


class FinishReason(Enum):
    """Why an output ended; nothing else ends one."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Finish:
    """The reason, and what was matched: a token id, or a stop string (found by cluster/engine/text.py)."""

    reason: FinishReason
    stop_token_id: int | None = None
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """One output of a request.

    `prompt_ids` are run as they are; at most `max_tokens` are drawn; `stop_ids` end it, but not before
    `sampling.min_tokens`. `key` names it for `abort`; higher `priority` runs first, and among equals the `client`
    that was served least. Outputs of one request are of one `family`: their prompt is run once. `prompt_logprobs` is
    the number of alternatives to report for the prompt's tokens, -1 for no report. `tenant` is the authenticated
    caller, "" where nobody is asked who they are.
    """

    key: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    priority: int = 0
    trace: bool = False
    client: str = ""
    family: str = ""
    prompt_logprobs: int = -1
    tenant: str = ""

    def sequence(self, by_tenant: bool) -> Sequence:
        """A sequence for the scheduler that begins with it; `by_tenant`, it finds its tenant's cached pages only."""
        return Sequence(
            key=self.key,
            token_ids=list(self.prompt_ids),
            prompt_length=len(self.prompt_ids),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop_ids=self.stop_ids,
            priority=self.priority,
            trace=self.trace,
            client=self.client,
            family=self.family,
            prompt_logprobs=self.prompt_logprobs,
            tenant=self.tenant if by_tenant else "",
        )


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A token of a sequence, as it is drawn. `finish` is set on the last one.

    `logprob` and `top` as in `model.batch.SampledToken`; `routing` holds what each layer's experts ran for this
    sequence since its last event, where a trace was asked for. Of all expert calls that the engine's head sent again,
    `retries` were until now and `retries_before` until the sequence first ran, at `started`. Of its prompt,
    `cached_tokens` were found in the KV cache. The first event carries `prompt_scores`, if they were asked for: the
    log-probability and alternatives of the prompt's second token, third token and so on.
    """

    key: str
    token_id: int
    finish: Finish | None = None
    logprob: float | None = None
    top: Alternatives = ()
    routing: tuple[tuple[int, ...], ...] = ()
    retries: int = 0
    retries_before: int = 0
    started: float = 0.0
    cached_tokens: int = 0
    prompt_scores: tuple[tuple[float, Alternatives], ...] = ()


@dataclass(frozen=True, slots=True)
class FailureEvent:
    """The end of a sequence that failed: `kind` is `unavailable`, `stopped` (the server ends), `slow` (its client does
    not read), `numeric` (the model gave what is no number), `constraint` (no allowed text can be reached) or
    `internal`.
    """

    key: str
    kind: str


Event = TokenEvent | FailureEvent
Sink = Callable[[list[Event]], None]
