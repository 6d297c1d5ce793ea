"""A request as the gateway has validated it."""

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
