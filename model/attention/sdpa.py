"""Attention by torch's scaled_dot_product_attention, which runs everywhere.
T: tokens of the batch, H: query heads, N: KV heads, G = H / N, d: head dimension, L: keys of a call, B: sequences of
a call. The sliding window is HF's: query i sees keys j with i-W < j <= i.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.device.host_link import put

_STACKED_ROWS = 1 << 16  # keys that one call of decodes may gather, which bounds its memory


@dataclass(frozen=True, slots=True)
class _Prefill:
    """A chunk: its rows of the batch, the cache rows of its keys [L], and the mask [queries, L] unless it is causal."""

    rows: slice
    kv_rows_L: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class _Decode:
    """B sequences with one query each and L keys each; the mask excludes those that pad a shorter sequence. `whole`:
    they are the batch, in its order.
    """

    rows_B: torch.Tensor
    kv_rows_BL: torch.Tensor
    mask_B11L: torch.Tensor
    whole: bool


_Call = _Prefill | _Decode


class SdpaBackend:
    """A sequence's result does not depend, to the bit, on the other sequences of its batch. A prompt's chunk is a call
    of its own. Sequences with one query are stacked with others of about their length and padded to a size that
    follows from their own length; the kernel treats each by itself.
    """

    name = "sdpa"
    page_multiple = 1

    def __init__(self, window: int | None, page_size: int) -> None:
        self.window, self.page_size = window, page_size

    def prepare(self, batch: RaggedBatch) -> list[_Call]:
        device = batch.positions_T.device
        stacks: dict[int, list[Segment]] = {}
        calls: list[_Call] = []
        for s in batch.segments:
            if s.length > 1:
                calls.append(self._prefill(s, device))
            else:
                stacks.setdefault(padded(s.kv_length - self.first_key(s.start)), []).append(s)
        for width, stack in stacks.items():
            most = max(1, _STACKED_ROWS // width)
            calls += [self._decode(stack[i : i + most], width, batch) for i in range(0, len(stack), most)]
        return calls

    def first_key(self, position: int) -> int:
        """The first position that a query at `position` sees."""
        return 0 if self.window is None else max(0, position - self.window + 1)

    def _prefill(self, s: Segment, device: torch.device) -> _Prefill:
        rows, first = slice(s.row, s.row + s.length), self.first_key(s.start)
        (kv_rows_L,) = self._kv_rows([s], s.kv_length - first, device)
        if s.start == 0 and (self.window is None or s.length <= self.window):
            return _Prefill(rows, kv_rows_L, None)
        queries = torch.arange(s.start, s.kv_length, device=device)[:, None]
        keys = torch.arange(first, s.kv_length, device=device)[None, :]
        mask = keys <= queries
        if self.window is not None:
            mask &= keys > queries - self.window
        return _Prefill(rows, kv_rows_L, mask)

    def _decode(self, stack: Sequence[Segment], width: int, batch: RaggedBatch) -> _Decode:
        """Example with page_size 4 and width 4: a query at position 5 in pages [9, 5] that sees from 4 on has keys
        at rows 5*4+0, 5*4+1; the last one is repeated, and masked, up to the width.
        """
        device, rows = batch.positions_T.device, [s.row for s in stack]
        counts = [s.kv_length - self.first_key(s.start) for s in stack]
        mask_BL = torch.arange(width, device=device)[None, :] < put(counts, device)[:, None]
        whole = rows == list(range(len(batch.positions_T)))
        kv_rows_BL = self._kv_rows(stack, width, device)
        return _Decode(put(rows, device, torch.int64), kv_rows_BL, mask_BL[:, None, None], whole)

    def _kv_rows(self, stack: Sequence[Segment], width: int, device: torch.device) -> torch.Tensor:
        """Cache rows of the keys of each sequence from the first one on that its first query sees, [B, width]. The last
        one is repeated where there are fewer: the other rows of its page may hold anything, NaN included.
        """
        size, firsts = self.page_size, [self.first_key(s.start) for s in stack]
        tables = [s.pages[first // size : -(-s.kv_length // size)] for s, first in zip(stack, firsts, strict=True)]
        longest = max(map(len, tables))
        pages = [page for table in tables for page in (*table, *(0,) * (longest - len(table)))]
        ends = [s.kv_length for s in stack]
        numbers = put([*firsts, *ends, *pages], device, torch.int64)  # one transfer
        first_B, end_B, pages_BP = numbers.split([len(stack), len(stack), len(pages)])
        positions_BL = first_B[:, None] + torch.arange(width, device=device)
        positions_BL = torch.minimum(positions_BL, end_B[:, None] - 1)
        index_BL = positions_BL // size - (first_B // size)[:, None]
        rows_BL: torch.Tensor = pages_BP.view(-1, longest).gather(1, index_BL) * size + positions_BL % size
        return rows_BL

    def attend(self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: list[_Call]) -> torch.Tensor:
        first = next(iter(prepared), None)
        if isinstance(first, _Decode) and first.whole:
            return self._attend_decode(q_THd, cache, layer, first)
        out = torch.empty_like(q_THd)
        for call in prepared:
            if isinstance(call, _Prefill):
                out[call.rows] = self._attend_prefill(q_THd[call.rows], cache, layer, call)
            else:
                out[call.rows_B] = self._attend_decode(q_THd[call.rows_B], cache, layer, call)
        return out

    @staticmethod
    def _attend_prefill(q_QHd: torch.Tensor, cache: PagedKVCache, layer: int, call: _Prefill) -> torch.Tensor:
        """On CUDA no fused kernel takes both a mask and heads that share keys, and the unfused one keeps all scores in
        memory. So keys are copied for each head there.
        """
        k_LHd, v_LHd = cache.read(layer, call.kv_rows_L)
        on_cpu = q_QHd.device.type == "cpu"
        if not on_cpu:
            k_LHd, v_LHd = (x.repeat_interleave(q_QHd.shape[1] // x.shape[1], dim=1) for x in (k_LHd, v_LHd))
        q_1HQd, k_1HLd, v_1HLd = (x.transpose(0, 1)[None] for x in (q_QHd, k_LHd, v_LHd))
        y_1HQd = F.scaled_dot_product_attention(
            q_1HQd, k_1HLd, v_1HLd, attn_mask=call.mask, is_causal=call.mask is None, enable_gqa=on_cpu
        )
        return y_1HQd[0].transpose(0, 1)

    @staticmethod
    def _attend_decode(q_BHd: torch.Tensor, cache: PagedKVCache, layer: int, call: _Decode) -> torch.Tensor:
        """Query heads that share a KV head are passed as its queries, so that keys need no copy for each head."""
        count, heads, d = q_BHd.shape
        pair = cache.read(layer, call.kv_rows_BL.flatten())
        k_BNLd, v_BNLd = (x.view(count, -1, *x.shape[1:]).transpose(1, 2) for x in pair)
        q_BNGd = q_BHd.view(count, k_BNLd.shape[1], -1, d)
        y_BNGd = F.scaled_dot_product_attention(q_BNGd, k_BNLd, v_BNLd, attn_mask=call.mask_B11L)
        return y_BNGd.reshape(count, heads, d)  # a view would fail: CUDA's kernels keep the queries outermost in memory


def padded(keys: int) -> int:
    """The number of keys rounded up to a multiple of 64, beyond 512 to an eighth of the next power of two."""
    step = max(64, 1 << max(0, (keys - 1).bit_length() - 3))
    return -(-keys // step) * step
