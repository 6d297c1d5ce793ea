"""Events that the engine tells of its sequences. Plain data."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cluster.policy.scheduling.sequence import Routing
from model.batch import Alternatives, SampledToken


class FinishReason(Enum):
    """Why an output ended; nothing else ends one."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"  # the model waits for the answers of tools


@dataclass(frozen=True, slots=True)
class Finish:
    """The reason, and what was matched: a token id, or a stop string (found by cluster/engine/text.py)."""

    reason: FinishReason
    stop_token_id: int | None = None
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """Comes right before a sequence's first token: it first ran `at`, on the engine's clock; until then the engine's
    head had sent `retries` expert calls again. Of its prompt, `cached_tokens` were found in the KV cache;
    `prompt_scores`, if asked for, are log-probability and alternatives of the prompt's tokens from the second on.
    """

    sequence_id: str
    at: float
    cached_tokens: int = 0
    prompt_scores: tuple[tuple[float, Alternatives], ...] = ()
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token of a sequence. `finish` is set on the last one. `routing`, if asked for, counts since the token before.
    Until now, the engine's head has sent `retries` expert calls again.
    """

    sequence_id: str
    token: SampledToken
    finish: Finish | None = None
    routing: Routing = ()
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of a sequence that failed: `kind` is `unavailable`, `stopped` (the server ends), `slow` (its client does
    not read), `numeric` (the model gave what is no number), `constraint` (no allowed text can be reached) or
    `internal`.
    """

    sequence_id: str
    kind: str


Event = Started | Sampled | Failed
Sink = Callable[[list[Event]], None]
