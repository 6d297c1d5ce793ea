"""A request as the gateway validated it, and the ranges of its sampling fields."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.engine.text import StopRules
from cluster.policy.scheduling.request import SequenceRequest


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """`sequence` is what each of the `n` outputs runs: they share its seed, and are told apart by their index."""

    request_id: str
    sequence: SequenceRequest
    rules: StopRules = field(default_factory=StopRules)
    n: int = 1
    special_tokens: bool = False


# What sampling fields may be, for clients and for a checkpoint's defaults: name, test, and what to say.
SAMPLING_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("temperature", lambda v: 0 <= v <= 2, "must be 0 to 2; 0 is greedy"),
    ("top_p", lambda v: 0 < v <= 1, "must be above 0 and at most 1"),
    ("top_k", lambda v: v >= 0, "must be at least 0; 0 keeps all"),
    ("min_p", lambda v: 0 <= v <= 1, "must be 0 to 1"),
    ("repetition_penalty", lambda v: 0 < v < float("inf"), "must be above 0; 1 changes nothing"),
    ("presence_penalty", lambda v: -2 <= v <= 2, "must be -2 to 2"),
    ("frequency_penalty", lambda v: -2 <= v <= 2, "must be -2 to 2"),
)
