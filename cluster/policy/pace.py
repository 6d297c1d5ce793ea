"""How much prefill may ride along with decodes. Pure.

A long prompt must not make everyone else's next token late, and how many of its tokens that allows depends on the
machine. So the cost of a prefill token is measured against that of a step that only decodes.
"""

from model.batch import StepPlan

_WEIGHT = 0.2  # of the newest step in the running means


class Pace:
    """Keeps steps that mix prefill and decode below `slowdown` times the duration of one that only decodes."""

    def __init__(self, slowdown: float, least: int = 16) -> None:
        """At least `least` prefill tokens are always allowed: a prompt must get on, too."""
        self._slowdown, self._least = slowdown, least
        self._decode_seconds: float | None = None
        self._token_seconds: float | None = None  # what a prefill token adds to a step

    def observe(self, plan: StepPlan, seconds: float) -> None:
        """Learn from a step that took so long."""
        prefill_tokens = sum(chunk.length for chunk in plan.chunks if chunk.length > 1)
        decodes = sum(chunk.length == 1 for chunk in plan.chunks)
        if decodes and not prefill_tokens:
            self._decode_seconds = _mean(self._decode_seconds, seconds)
        elif prefill_tokens >= self._least and self._decode_seconds is not None:
            added = max(0.0, seconds - self._decode_seconds)
            self._token_seconds = _mean(self._token_seconds, added / prefill_tokens)

    def prefill_tokens(self) -> int | None:
        """How many may share a step with decodes; None if that is not known yet or nothing holds them back."""
        if self._decode_seconds is None or self._token_seconds is None:
            return 4 * self._least if self._decode_seconds is not None else None
        if not self._token_seconds:
            return None
        return max(self._least, int((self._slowdown - 1) * self._decode_seconds / self._token_seconds))


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else before + _WEIGHT * (newest - before)
