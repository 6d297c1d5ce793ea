"""The head's memory of the sequences it is running: tokens, page table and sampling of each slot.

It follows the scheduler's plans to the letter and decides nothing. Torch enters only through the batch it builds.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from model.batch import Chunk, NewSequence, SampledToken, StepPlan
from model.ragged import RaggedBatch, Segment
from model.sampling import DrawRequest


@dataclass(slots=True)
class _Slot:
    new: NewSequence
    token_ids: list[int]
    pages: list[int] = field(default_factory=list)


class Slots:
    """Sequences by slot."""

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}

    def apply(self, plan: StepPlan) -> None:
        """Release, admit and extend page tables as the plan says."""
        for slot in plan.release:
            del self._slots[slot]
        for new in plan.admit:
            assert new.slot not in self._slots, f"slot {new.slot} is taken"
            self._slots[new.slot] = _Slot(new, list(new.token_ids))
        for chunk in plan.chunks:
            self._slots[chunk.slot].pages.extend(chunk.new_pages)

    def batch(self, chunks: Iterable[Chunk], page_size: int, device: str) -> RaggedBatch:
        """The ragged batch of these chunks, in their order."""
        segments: list[Segment] = []
        token_ids: list[int] = []
        sample_rows: list[int] = []
        for chunk in chunks:
            slot = self._slots[chunk.slot]
            segments.append(Segment(len(token_ids), chunk.length, chunk.start, slot.pages))
            token_ids += slot.token_ids[chunk.start : chunk.start + chunk.length]
            assert len(token_ids) == segments[-1].row + chunk.length, f"slot {chunk.slot}: chunk past its tokens"
            if chunk.sample:
                assert segments[-1].kv_length == len(slot.token_ids), f"slot {chunk.slot}: samples before its end"
                sample_rows.append(len(token_ids) - 1)
        return RaggedBatch.build(segments, token_ids, sample_rows, page_size, device)

    def draw_requests(self, chunks: Iterable[Chunk]) -> list[DrawRequest]:
        """What to draw, in the order of the batch's `sample_rows`."""
        return [
            DrawRequest(c.slot, s.new.sampling, s.token_ids, s.new.prompt_length)
            for c in chunks
            if c.sample
            for s in (self._slots[c.slot],)
        ]

    def commit(self, tokens: Iterable[SampledToken]) -> None:
        """Append what was drawn, so that the next plan can name it by slot."""
        for token in tokens:
            self._slots[token.slot].token_ids.append(token.token_id)

    def traced(self, chunks: Iterable[Chunk]) -> list[tuple[int, int, int]]:
        """(slot, first row, rows) of the chunks whose sequences asked for a trace."""
        row, found = 0, []
        for chunk in chunks:
            if self._slots[chunk.slot].new.trace:
                found.append((chunk.slot, row, chunk.length))
            row += chunk.length
        return found

    def clear(self) -> None:
        """Forget everything: another engine takes over."""
        self._slots.clear()
