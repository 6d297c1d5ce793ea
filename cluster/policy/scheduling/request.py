"""What one output of a request runs: validated, tokenised, with every default filled in."""

from dataclasses import dataclass

from model.batch import SamplingParams


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """Plain data that a `Sequence` holds.

    `prompt_ids` are run as they are; at most `max_tokens` are sampled; `stop_ids` end the sequence, but not before
    `sampling.min_tokens`. Higher `priority` runs first, and among equals the `client` that was served least. `routing`
    asks for what the experts ran for it, `prompt_logprobs` for the log-probabilities of the prompt's tokens with that
    many alternatives (-1: none). The sequence finds only cached pages of its `tenant`: the authenticated caller, ""
    where callers are not authenticated or share the cache.

    `sequence_id` names it for `abort`. The outputs of one request have the same prompt and `family`, so that their
    prompt is run once. Both are empty until the request is split into its outputs.
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
