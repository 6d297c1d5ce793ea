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
    """B sequences with one query each and L keys each; the mask excludes those that pad a shorter sequence."""

    rows_B: torch.Tensor
    kv_rows_BL: torch.Tensor
    mask_B11L: torch.Tensor


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
                seen = s.kv_length - self._first_page(s.start) * self.page_size
                stacks.setdefault(-(-padded(seen) // self.page_size), []).append(s)
        for pages, stack in stacks.items():
            most = max(1, _STACKED_ROWS // (pages * self.page_size))
            calls += [self._decode(stack[i : i + most], pages, device) for i in range(0, len(stack), most)]
        return calls

    def first_key(self, position: int) -> int:
        """The first position that a query at `position` sees."""
        return 0 if self.window is None else max(0, position - self.window + 1)

    def _first_page(self, position: int) -> int:
        return self.first_key(position) // self.page_size

    def _prefill(self, s: Segment, device: torch.device) -> _Prefill:
        rows, first = slice(s.row, s.row + s.length), self.first_key(s.start)
        begin = self._first_page(s.start)
        pages_P = put(list(s.pages[begin : -(-s.kv_length // self.page_size)]), device, torch.int64)
        own = slice(first - begin * self.page_size, s.kv_length - begin * self.page_size)
        kv_rows_L = self._rows_of(pages_P)[own]
        if s.start == 0 and (self.window is None or s.length <= self.window):
            return _Prefill(rows, kv_rows_L, None)
        queries = torch.arange(s.start, s.kv_length, device=device)[:, None]
        keys = torch.arange(first, s.kv_length, device=device)[None, :]
        mask = keys <= queries
        if self.window is not None:
            mask &= keys > queries - self.window
        return _Prefill(rows, kv_rows_L, mask)

    def _rows_of(self, pages: torch.Tensor) -> torch.Tensor:
        """All cache rows of pages, [..., P] -> [..., P * page_size]."""
        offsets = torch.arange(self.page_size, device=pages.device)
        return (pages[..., None] * self.page_size + offsets).flatten(-2)

    def _decode(self, stack: Sequence[Segment], count: int, device: torch.device) -> _Decode:
        """Example with page_size 4 and 2 pages: a query at position 5 in pages [9, 5] that sees from 2 on has keys at
        rows 9*4+2, 9*4+3, 5*4+0, 5*4+1. The last of them stands, masked, for the other rows of its pages, because
        those may hold anything, NaN included.
        """
        pages, bounds = list[int](), list[int]()
        for s in stack:
            begin = self._first_page(s.start)
            own = list(s.pages[begin : -(-s.kv_length // self.page_size)])
            pages += own + own[-1:] * (count - len(own))
            bounds += [self.first_key(s.start) - begin * self.page_size, s.kv_length - begin * self.page_size]
        numbers = put([*(s.row for s in stack), *bounds, *pages], device, torch.int64)  # one transfer
        rows_B, bounds_2B, pages_BP = numbers.split([len(stack), 2 * len(stack), len(pages)])
        first_B1, end_B1 = bounds_2B.view(-1, 2, 1).unbind(1)
        keys_L = torch.arange(count * self.page_size, device=device)
        mask_BL = (keys_L >= first_B1) & (keys_L < end_B1)
        all_BL = self._rows_of(pages_BP.view(-1, count))
        kv_rows_BL = torch.where(mask_BL, all_BL, all_BL.gather(1, end_B1 - 1))
        return _Decode(rows_B, kv_rows_BL, mask_BL[:, None, None])

    def attend(self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: list[_Call]) -> torch.Tensor:
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
