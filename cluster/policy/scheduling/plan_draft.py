"""A step's plan while it is made."""

from dataclasses import dataclass, field

from model.batch import Chunk, NewSequence, StepPlan


@dataclass(slots=True)
class PlanDraft:
    """A step's chunks so far, and the `budget`: how many tokens more it may take. `copies` holds pairs of KV pages,
    from and to, that are copied before any chunk runs.
    """

    budget: int
    chunks: list[Chunk] = field(default_factory=list)
    admitted: list[NewSequence] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)

    def run(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.budget -= chunk.length

    def bound_prefill(self, tokens: int | None) -> None:
        """Run at most this many more tokens; 0 only bounds a step that has chunks already."""
        if tokens is not None and (self.chunks or tokens):
            self.budget = min(self.budget, tokens)

    def plan(self, step: int, epoch: int, incarnation: str, release: list[int]) -> StepPlan:
        admitted, chunks, copies = tuple(self.admitted), tuple(self.chunks), tuple(self.copies)
        return StepPlan(step, epoch, incarnation, tuple(release), admitted, chunks, copies)
