"""A ragged batch: chunks of several sequences, of any lengths, one after the other and without padding.
T: tokens of the batch, over all chunks; a chunk's keys are its sequence's positions [0, kv_length).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model.device.host_link import put


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence's part of the batch: rows [row, row + length) are its positions [start, start + length).
    Position p lies in page `pages[p // page_size]`. Pages wholly older than the sliding window may belong to other
    sequences by now; they are never read. A `prompt` may have been cut anywhere, even to one row.
    """

    row: int
    length: int
    start: int
    pages: Sequence[int]
    prompt: bool = False

    @property
    def kv_length(self) -> int:
        """The number of keys once the chunk's own are written."""
        return self.start + self.length

    def kv_rows(self, first: int, page_size: int) -> list[int]:
        """The cache rows of positions [first, kv_length), as page * page_size + offset."""
        rows: list[int] = []
        for index in range(first // page_size, -(-self.kv_length // page_size)):
            rows += range(self.pages[index] * page_size, (self.pages[index] + 1) * page_size)
        skipped = first % page_size
        return rows[skipped : skipped + self.kv_length - first]


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """Tensors (int64) that a step's layers share. `kv_rows_T`: each token's cache row, page * page_size + offset;
    `logit_rows`: the tokens whose logits are needed.
    """

    segments: tuple[Segment, ...]
    token_ids_T: torch.Tensor
    positions_T: torch.Tensor
    kv_rows_T: torch.Tensor
    logit_rows: torch.Tensor

    @classmethod
    def build(
        cls,
        segments: Sequence[Segment],
        token_ids: Sequence[int],
        logit_rows: Sequence[int],
        page_size: int,
        device: torch.device | str = "cpu",
    ) -> "RaggedBatch":
        """Lay out a batch. Example with page_size 4: a chunk of 3 tokens at start 6 of a sequence with pages
        [9, 5, 7] has positions 6 7 8 and KV rows 5*4+2, 5*4+3, 7*4+0.
        """
        positions = [p for s in segments for p in range(s.start, s.kv_length)]
        kv_rows = [row for s in segments for row in s.kv_rows(s.start, page_size)]
        columns = (token_ids, positions, kv_rows, logit_rows)
        together = put([number for column in columns for number in column], device, torch.int64)  # one transfer
        return cls(tuple(segments), *together.split([len(column) for column in columns]))
