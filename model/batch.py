"""The contract of both planes: the engine's plan for one step, and the head's result.

Plain frozen data without torch, so that the scheduler stays pure. A plan carries only what the head lacks: a sequence's
tokens travel once, when it is admitted; afterwards its slot names it, and a decode chunk carries no token, because the
head knows the last sampled one.
"""

from dataclasses import dataclass
from enum import Enum

Alternatives = tuple[tuple[int, float], ...]  # (id, logprob), best first


class ConstraintKind(Enum):
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CALLS = "calls"  # of tools, as model/constraint/calls_grammar.py writes their rules down


@dataclass(frozen=True, slots=True)
class Constraint:
    """A JSON schema, a regular expression, or rules for calls of tools, that the whole text of an output must match."""

    kind: ConstraintKind
    text: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one sequence are sampled. Defaults change nothing. `seed` and `output_index` fix the noise of
    every sample. `logprobs` is the number of alternatives to report, -1 for no log-probabilities at all. `banned` ids
    are not sampled before `min_tokens`, unless the `constraint` allows nothing else.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    output_index: int = 0
    min_tokens: int = 0
    banned: tuple[int, ...] = ()
    logprobs: int = -1
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class NewSequence:
    """A sequence that enters a slot. `token_ids` is the prompt (`prompt_length` ids) and, after a preemption, the
    output so far. `routing` asks for the sequence's expert counts in every result, `prompt_logprobs` for
    log-probabilities of the prompt's tokens with that many alternatives (-1: none).
    """

    slot: int
    token_ids: tuple[int, ...]
    prompt_length: int
    sampling: SamplingParams
    routing: bool = False
    prompt_logprobs: int = -1


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of one slot's tokens through the model: positions `start` to `start + length - 1`. `new_pages` are appended
    to the slot's table of KV pages. A sequence that enters with part of its cache ready begins at a `start` above 0,
    and its first `new_pages` hold the positions before. With `sample` the chunk ends at the last known token, and its
    logits give the next one.
    """

    slot: int
    start: int
    length: int
    new_pages: tuple[int, ...]
    sample: bool


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step. `epoch` names the engine that plans and `incarnation` the head's process. The head refuses a plan of
    another epoch or incarnation, because a restarted head has lost its KV cache and two engines must not drive one
    head. `release` empties slots before `admit` fills them. `copies` (from page, to page) are made in their order
    before any chunk runs: a sequence that shares pages with another gets its own copy of the page it will write to.
    """

    step: int
    epoch: int
    incarnation: str
    release: tuple[int, ...]
    admit: tuple[NewSequence, ...]
    chunks: tuple[Chunk, ...]
    copies: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The token sampled for a slot. `logprob` and `top` (id, logprob; best first) are log-softmax of the raw logits,
    present where the sequence's `logprobs` asks for them. `numeric` is false where the logits held NaN or infinity;
    the token then means nothing.
    """

    slot: int
    token_id: int
    logprob: float | None = None
    top: Alternatives = ()
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Log-softmax of the raw logits for a run of a slot's prompt tokens, from position `start` on: for each its own
    logprob and the alternatives at its place. A prompt's first token, at position 0, has none.
    """

    slot: int
    start: int
    tokens: tuple[tuple[float, Alternatives], ...]


@dataclass(frozen=True, slots=True)
class SequenceFault:
    """A slot whose sequence got no token and cannot go on, while all others do. `kind` is `numeric` (its logits hold
    NaN or infinity) or `constraint` (its text can no longer become one that the constraint allows); `detail` is for
    the operator's log.
    """

    slot: int
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step: a token for each slot that sampled, prompt tokens' log-probabilities where they were asked
    for, and the slots that cannot go on. `expert_tokens[layer][expert]` counts the rows that each expert ran in this
    step, `routing` the same for each slot that asks for it. `retries` counts expert calls that were sent again.
    `seconds` is the step's time on the head's clock, of which `dispatch_seconds` waiting for experts.
    """

    step: int
    epoch: int
    tokens: tuple[SampledToken, ...]
    expert_tokens: tuple[tuple[int, ...], ...]
    routing: tuple[tuple[int, tuple[tuple[int, ...], ...]], ...] = ()
    retries: int = 0
    seconds: float = 0.0
    dispatch_seconds: float = 0.0
    prompts: tuple[PromptLogprobs, ...] = ()
    faults: tuple[SequenceFault, ...] = ()


@dataclass(frozen=True, slots=True)
class StepFailure:
    """A step that did not run to its end. The head's sequences are in doubt (after `stale`: are another engine's) until
    the engine begins anew. `kind` is `unavailable` (an expert has no replica that answers), `stale` (epoch or
    incarnation differ) or `internal`; `detail` is for the operator's log.
    """

    step: int
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class HeadInfo:
    """A head's answer to the engine that adopts it: its incarnation and the KV pages it owns."""

    incarnation: str
    page_count: int
    page_size: int


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a process has loaded its weights, in stored bytes; `error` ends the attempt."""

    loaded_bytes: int
    total_bytes: int
    ready: bool = False
    error: str = ""
