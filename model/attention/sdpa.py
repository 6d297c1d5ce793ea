"""Attention by torch's scaled_dot_product_attention, which runs everywhere.
T: tokens of the batch, H: query heads, N: KV heads, G = H / N, d: head dimension, K: keys of a chunk, L: keys of a
call, Q: queries of a block, B: sequences of a call. The sliding window is HF's: query i sees keys j with i-W < j <= i.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.device.host_link import put

_BLOCK = 64  # queries of a prompt that are computed together
_STACKED_ROWS = 1 << 16  # keys that one call of decodes may gather, which bounds its memory


@dataclass(frozen=True, slots=True)
class _Block:
    """Queries of a chunk: their rows of the batch, the first one's place in its block, and which of the chunk's keys
    they are shown; the mask [Q, L] says which of these they see.
    """

    rows: slice
    place: int
    keys: slice | torch.Tensor
    mask_QL: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Prefill:
    """A chunk: the cache rows of its keys, and its blocks."""

    kv_rows_K: torch.Tensor
    blocks: tuple[_Block, ...]


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
    """A token's result does not depend, to the bit, on the other sequences of its batch, nor on how its prompt is cut
    into chunks. A prompt's queries go by blocks that lie at multiples of their size, each a call of its own with the
    keys up to its end; queries and keys that are not there are padding. Queries of outputs are stacked with others that
    have about as many keys, padded to a size that follows from their own number; the kernel treats each by itself.
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
            if s.prompt or s.length > 1:
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
        first = self.first_key(s.start)
        (kv_rows_K,) = self._kv_rows([s], s.kv_length - first, device)
        begins = range(s.start // _BLOCK * _BLOCK, s.kv_length, _BLOCK)
        return _Prefill(kv_rows_K, tuple(self._block(s, begin, first, device) for begin in begins))

    def _block(self, s: Segment, begin: int, first: int, device: torch.device) -> _Block:
        """The block that lies from position `begin` on; the chunk's keys lie from `first` on. In place of keys that are
        not there, yet or any more, others are shown, and masked.
        """
        end = begin + _BLOCK
        least, most = max(begin, s.start), min(end, s.kv_length)
        queries, keys = (torch.arange(x, end, device=device) for x in (begin, self.first_key(begin)))
        mask = keys <= queries[:, None]
        if self.window is not None:
            mask &= keys > queries[:, None] - self.window
        rows = slice(s.row + least - s.start, s.row + most - s.start)
        shown: slice | torch.Tensor = slice(self.first_key(begin) - first, end - first)
        if self.first_key(begin) < first or end > s.kv_length:
            shown = (keys - first).clamp(0, s.kv_length - first - 1)
        return _Block(rows, least - begin, shown, mask)

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
                self._attend_prefill(q_THd, cache, layer, call, out)
            else:
                out[call.rows_B] = self._attend_decode(q_THd[call.rows_B], cache, layer, call)
        return out

    @staticmethod
    def _attend_prefill(
        q_THd: torch.Tensor, cache: PagedKVCache, layer: int, call: _Prefill, out_THd: torch.Tensor
    ) -> None:
        """On CUDA no fused kernel takes both a mask and heads that share keys, and the unfused one keeps all scores in
        memory. So keys are copied for each head there.
        """
        k_KHd, v_KHd = cache.read(layer, call.kv_rows_K)
        on_cpu = q_THd.device.type == "cpu"
        if not on_cpu:
            k_KHd, v_KHd = (x.repeat_interleave(q_THd.shape[1] // x.shape[1], dim=1) for x in (k_KHd, v_KHd))
        for block in call.blocks:
            q_QHd = q_THd[block.rows]
            count = len(q_QHd)
            if count < _BLOCK:
                q_QHd = F.pad(q_QHd, (0, 0, 0, 0, block.place, _BLOCK - block.place - count))
            q_1HQd, k_1HLd, v_1HLd = (x.transpose(0, 1)[None] for x in (q_QHd, k_KHd[block.keys], v_KHd[block.keys]))
            y_1HQd = F.scaled_dot_product_attention(q_1HQd, k_1HLd, v_1HLd, attn_mask=block.mask_QL, enable_gqa=on_cpu)
            out_THd[block.rows] = y_1HQd[0].transpose(0, 1)[block.place : block.place + count]

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
