"""Attention as the textbook writes it: what the fast backends are timed against, and compared with.

H: query heads, N: KV heads, d: head dimension, Q: queries of a chunk, L: its keys. Window as in `model.attention`.
"""

from dataclasses import dataclass

import torch

from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One sequence's rows of the batch, the KV rows of its keys [L], and which keys a query must not see [Q, L]."""

    rows: slice
    kv_rows_L: torch.Tensor
    hidden_QL: torch.Tensor | None


class EagerBackend:
    """softmax(Q K^T / sqrt(d)) V with every score in memory, in the roundings of HF's `eager_attention_forward`.

    KV heads are repeated, scores are in the model's dtype, the softmax is in fp32. Each sequence is a call of its own.
    """

    name = "eager"
    page_multiple = 1

    def __init__(self, window: int | None, page_size: int) -> None:
        self.window, self.page_size = window, page_size

    def prepare(self, batch: RaggedBatch) -> list[_Chunk]:
        """Slots and mask of each sequence."""
        return [self._chunk(s, batch.positions_T.device) for s in batch.segments]

    def _chunk(self, s: Segment, device: torch.device) -> _Chunk:
        first = 0 if self.window is None else max(0, s.start - self.window + 1)
        rows = slice(s.row, s.row + s.length)
        kv_rows_L = torch.tensor(s.kv_rows(first, self.page_size), dtype=torch.int64, device=device)
        if s.length == 1:
            return _Chunk(rows, kv_rows_L, None)
        queries_Q1 = torch.arange(s.start, s.kv_length, device=device)[:, None]
        keys_1L = torch.arange(first, s.kv_length, device=device)[None, :]
        hidden_QL = keys_1L > queries_Q1
        if self.window is not None:
            hidden_QL |= keys_1L <= queries_Q1 - self.window
        return _Chunk(rows, kv_rows_L, hidden_QL)

    def attend(self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: list[_Chunk]) -> torch.Tensor:
        """See `AttentionBackend.attend`."""
        out = torch.empty_like(q_THd)
        for chunk in prepared:
            k_LNd, v_LNd = cache.read(layer, chunk.kv_rows_L)
            out[chunk.rows] = _attend(q_THd[chunk.rows], k_LNd, v_LNd, chunk.hidden_QL)
        return out


def _attend(
    q_QHd: torch.Tensor, k_LNd: torch.Tensor, v_LNd: torch.Tensor, hidden_QL: torch.Tensor | None
) -> torch.Tensor:
    _, heads, d = q_QHd.shape
    k_HLd, v_HLd = (x.transpose(0, 1).repeat_interleave(heads // x.shape[1], dim=0) for x in (k_LNd, v_LNd))
    scores_HQL = (q_QHd.transpose(0, 1) @ k_HLd.transpose(1, 2)).mul_(d**-0.5)
    if hidden_QL is not None:
        scores_HQL.masked_fill_(hidden_QL, -torch.inf)
    wide = torch.promote_types(q_QHd.dtype, torch.float32)
    shares_HQL = torch.softmax(scores_HQL, dim=-1, dtype=wide).to(q_QHd.dtype)
    return (shares_HQL @ v_HLd).transpose(0, 1)
