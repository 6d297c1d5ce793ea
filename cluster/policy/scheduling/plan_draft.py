"""A step's plan while it is made."""

from model.batch import Chunk, NewSequence, StepPlan


class PlanDraft:
    """What a step runs so far, and the `budget`: how many tokens more it may take."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.chunks: list[Chunk] = []
        self._admitted: list[NewSequence] = []
        self._copies: list[tuple[int, int]] = []

    def run(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.budget -= chunk.length

    def admit(self, new: NewSequence) -> None:
        self._admitted.append(new)

    def copy(self, source: int, target: int) -> None:
        """Copy a KV page before any chunk runs."""
        self._copies.append((source, target))

    def bound_prefill(self, tokens: int | None) -> None:
        """Run at most this many more tokens if the step has chunks already: these are decodes, which must not wait."""
        if self.chunks and tokens is not None:
            self.budget = min(self.budget, tokens)

    def plan(self, step: int, epoch: int, incarnation: str, release: list[int]) -> StepPlan:
        admitted, chunks, copies = tuple(self._admitted), tuple(self.chunks), tuple(self._copies)
        return StepPlan(step, epoch, incarnation, tuple(release), admitted, chunks, copies)
