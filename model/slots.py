"""The head's memory of the sequences it runs: tokens, page table and sampler of each slot.

It follows the scheduler's plans to the letter and decides nothing. R: rows whose logits are needed, V: vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from model.attention.ragged import RaggedBatch, Segment
from model.batch import Chunk, NewSequence, PromptLogprobs, SampledToken, SequenceFault, StepPlan
from model.device.host_link import put
from model.sampling.sampler import MaskMaker, Sampler, logprobs, sample


@dataclass(slots=True)
class _Slot:
    new: NewSequence
    token_ids: list[int]
    sampler: Sampler
    pages: list[int] = field(default_factory=list)

    def scored(self, chunk: Chunk) -> int:
        """How many of the chunk's positions, from its first, are asked for a prompt token's log-probability."""
        asked = self.new.prompt_length - 1 if self.new.prompt_logprobs >= 0 else 0
        return max(0, min(chunk.length, asked - chunk.start))

    def segments(self, chunk: Chunk, row: int) -> Iterator[Segment]:
        """The chunk from this row of a batch on. A sequence that begins again runs its output once more, and attention
        does so as it did: each token by itself, because a chunk of them would have other last bits.
        """
        end = chunk.start + chunk.length
        middle = min(max(chunk.start, self.new.prompt_length), end)
        if prompt := middle - chunk.start:
            yield Segment(row, prompt, chunk.start, self.pages, prompt=True)
        for position in range(middle, end):
            yield Segment(row + position - chunk.start, 1, position, self.pages)


class Slots:
    def __init__(self, make_mask: MaskMaker) -> None:
        self._make_mask = make_mask
        self._slots: dict[int, _Slot] = {}
        self._faulty: set[int] = set()  # they got no token, and run no more

    def apply(self, plan: StepPlan) -> None:
        for slot in plan.release:
            del self._slots[slot]
            self._faulty.discard(slot)
        for new in plan.admit:
            assert new.slot not in self._slots, f"slot {new.slot} is taken"
            self._slots[new.slot] = _Slot(new, list(new.token_ids), Sampler(new, self._make_mask))
        for chunk in plan.chunks:
            self._slots[chunk.slot].pages.extend(chunk.new_pages)

    def runnable(self, chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
        """The chunks of slots without a fault: a plan that was made ahead knows of none."""
        return tuple(chunk for chunk in chunks if chunk.slot not in self._faulty)

    def scores_prompts(self, chunks: Sequence[Chunk]) -> bool:
        """Whether tokens of prompts are scored, so that logits of all of them are needed."""
        return any(self._slots[chunk.slot].scored(chunk) for chunk in chunks)

    def batch(self, chunks: Sequence[Chunk], page_size: int, device: str) -> RaggedBatch:
        """The ragged batch of these chunks, in their order. A chunk has a logit row for each prompt token to score
        and then, if it samples, one for its last token.
        """
        segments: list[Segment] = []
        token_ids: list[int] = []
        logit_rows: list[int] = []
        for chunk in chunks:
            slot, row = self._slots[chunk.slot], len(token_ids)
            segments += slot.segments(chunk, row)
            token_ids += slot.token_ids[chunk.start : chunk.start + chunk.length]
            assert len(token_ids) == row + chunk.length, f"slot {chunk.slot}: chunk past its tokens"
            logit_rows += range(row, row + slot.scored(chunk))
            if chunk.sample:
                assert segments[-1].kv_length == len(slot.token_ids), f"slot {chunk.slot}: samples before its end"
                logit_rows.append(len(token_ids) - 1)
        return RaggedBatch.build(segments, token_ids, logit_rows, page_size, device)

    def results(
        self, logits_RV: torch.Tensor, chunks: Sequence[Chunk]
    ) -> tuple[tuple[SampledToken, ...], tuple[PromptLogprobs, ...], tuple[SequenceFault, ...]]:
        """Sample a token for each chunk that asks for one, and score prompt tokens; rows are laid out by `batch`.
        Tokens are appended to their slots, so that the next plan can name them by slot; slots that cannot go on are
        faults.
        """
        rows: list[int] = []
        samplers: list[Sampler] = []
        prompts: list[PromptLogprobs] = []
        faults: list[SequenceFault] = []
        row = 0
        for chunk in chunks:
            slot = self._slots[chunk.slot]
            if count := slot.scored(chunk):
                ids = slot.token_ids[chunk.start + 1 : chunk.start + 1 + count]
                own = put(ids, logits_RV.device, torch.int64)
                told = logprobs(logits_RV[row : row + count], own, [slot.new.prompt_logprobs] * count)
                if all(math.isfinite(own_logprob) for own_logprob, _ in told):
                    prompts.append(PromptLogprobs(chunk.slot, chunk.start + 1, tuple(told)))
                else:
                    faults.append(SequenceFault(chunk.slot, "numeric", "logits of its prompt hold NaN or infinity"))
                row += count
            if chunk.sample:
                rows.append(row)
                samplers.append(slot.sampler)
                row += 1
        wanted = logits_RV if len(rows) == row else logits_RV[put(rows, logits_RV.device, torch.int64)]
        tokens: list[SampledToken] = []
        for token in sample(wanted, samplers):
            slot = self._slots[token.slot]
            if not token.numeric:
                faults.append(SequenceFault(token.slot, "numeric", "its logits hold NaN or infinity"))
            elif failure := slot.sampler.push(token.token_id):
                faults.append(SequenceFault(token.slot, "constraint", failure))
            else:
                slot.token_ids.append(token.token_id)
                tokens.append(token)
        self._faulty.update(fault.slot for fault in faults)
        return tuple(tokens), tuple(prompts), tuple(faults)

    def routed(self, chunks: Sequence[Chunk]) -> list[tuple[int, int, int]]:
        """(slot, first row, rows) of each chunk whose sequence asks for its routing."""
        firsts = accumulate((chunk.length for chunk in chunks), initial=0)
        return [
            (c.slot, row, c.length) for row, c in zip(firsts, chunks, strict=False) if self._slots[c.slot].new.routing
        ]

    def clear(self) -> None:
        """Another engine takes over."""
        self._slots.clear()
        self._faulty.clear()
