"""Attention by the flash-attention kernels of a CUDA device (Dao 2023, Shah et al. 2024).

A sequence's result must not depend on the other sequences of its batch, but these kernels choose their tiles by the
longest query and split keys by how full the device is. So sequences with one query have a call of their own, the chunks
of prompts have another, and keys are never split.
T: tokens of the batch, B: sequences of a call, H: query heads, N: KV heads, d: head dimension.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch

from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.attention.sdpa import SdpaBackend
from model.device.host_link import put

_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class _Call:
    """Sequences of one kernel call: their rows of the batch, the offsets of each one's queries and keys (int32
    [B + 1]), the number of keys of each (int32 [B]), and their page tables (int32 [B, most pages]).
    """

    rows: slice | torch.Tensor
    cu_q: torch.Tensor
    cu_k: torch.Tensor
    k_lengths: torch.Tensor
    table: torch.Tensor
    max_q: int
    max_k: int

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device) -> "_Call":
        q, k = [s.length for s in segments], [s.kv_length for s in segments]
        width, count = max(len(s.pages) for s in segments), len(segments)
        table = [page for s in segments for page in (*s.pages, *[0] * (width - len(s.pages)))]
        numbers = [*accumulate(q, initial=0), *accumulate(k, initial=0), *k, *table]
        sizes = [count + 1, count + 1, count, count * width]
        cu_q, cu_k, k_lengths, flat = put(numbers, device, torch.int32).split(sizes)
        return cls(_rows(segments, device), cu_q, cu_k, k_lengths, flat.view(count, width), max(q), max(k))


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Chunks whose keys are gathered first: their rows of the batch, the cache rows of all their keys, and bounds: the
    offsets of each one's queries and keys (int32 [B + 1]), and the largest number of each.
    """

    rows: slice | torch.Tensor
    kv_rows_L: torch.Tensor
    bounds: tuple[torch.Tensor, torch.Tensor, int, int]


def _rows(segments: Sequence[Segment], device: torch.device) -> slice | torch.Tensor:
    begin, end = segments[0].row, segments[-1].row + segments[-1].length
    if end - begin == sum(s.length for s in segments):
        return slice(begin, end)
    return put([row for s in segments for row in range(s.row, s.row + s.length)], device, torch.int64)


def _calls(batch: RaggedBatch) -> Iterator[list[Segment]]:
    for several in (False, True):
        if segments := [s for s in batch.segments if (s.length > 1) == several]:
            yield segments


class FlashBackend:
    """flash-attn 2: varlen prefill and decode, both straight from the pages."""

    name = "flash_attn"
    page_multiple = 256  # it reads pages in multiples of 256 rows

    def __init__(self, window: int | None, page_size: int) -> None:
        """ImportError unless flash-attn 2 is installed; other packages install a `flash_attn` of their own."""
        import flash_attn

        if not hasattr(flash_attn, "flash_attn_varlen_func") or not hasattr(flash_attn, "flash_attn_with_kvcache"):
            raise ImportError("the package flash_attn that is installed is not flash-attn 2")
        self._lib = flash_attn
        self._window = (-1, -1) if window is None else (window - 1, 0)

    def prepare(self, batch: RaggedBatch) -> list[_Call]:
        return [_Call.of(segments, batch.positions_T.device) for segments in _calls(batch)]

    def attend(self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: list[_Call]) -> torch.Tensor:
        out = torch.empty_like(q_THd)
        for call in prepared:
            out[call.rows] = self._attend(q_THd[call.rows], cache.keys[layer], cache.values[layer], call)
        return out

    def _attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, call: _Call) -> torch.Tensor:
        causal: dict[str, Any] = {"causal": True, "window_size": self._window, "block_table": call.table}
        if call.max_q == 1:
            out = self._lib.flash_attn_with_kvcache(
                q[:, None], keys, values, cache_seqlens=call.k_lengths, num_splits=1, **causal
            )
            return torch.as_tensor(out)[:, 0]
        out = self._lib.flash_attn_varlen_func(q, keys, values, call.cu_q, call.cu_k, call.max_q, call.max_k, **causal)
        return torch.as_tensor(out)


class Flash3Backend(FlashBackend):
    """FlashAttention-3 (Hopper): one function for both, pages of any size."""

    name = "flash_attn_3"
    page_multiple = 1

    def __init__(self, window: int | None, page_size: int) -> None:
        """ImportError unless FlashAttention-3 is installed."""
        import flash_attn_interface

        if not hasattr(flash_attn_interface, "flash_attn_with_kvcache"):
            raise ImportError("the module flash_attn_interface that is installed is not FlashAttention-3")
        self._lib = flash_attn_interface
        self._window = (-1, -1) if window is None else (window - 1, 0)

    def _attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, call: _Call) -> torch.Tensor:
        out = self._lib.flash_attn_with_kvcache(
            q,
            keys,
            values,
            cache_seqlens=call.k_lengths,
            page_table=call.table,
            cu_seqlens_q=call.cu_q,
            max_seqlen_q=call.max_q,
            causal=True,
            window_size=self._window,
            num_splits=1,
        )
        return torch.as_tensor(out[0] if isinstance(out, tuple) else out)


class VarlenBackend:
    """torch's own varlen kernel, which needs no other package. It reads no pages: a chunk's keys are gathered first.
    Sequences with one query go to SDPA: older versions split their keys by how full the device is.
    """

    name = "torch_varlen"
    page_multiple = 1

    def __init__(self, window: int | None, page_size: int) -> None:
        """ImportError unless this torch has it."""
        from torch.nn.attention.varlen import varlen_attn

        self._varlen_attn: Any = varlen_attn
        known = inspect.signature(varlen_attn).parameters  # older ones share heads unasked, and never split keys
        wanted: dict[str, Any] = {"enable_gqa": True, "num_splits": 1}
        self._options = {name: value for name, value in wanted.items() if name in known}
        self._options["window_size"] = (-1, 0) if window is None else (window - 1, 0)
        self._sdpa = SdpaBackend(window, page_size)

    def prepare(self, batch: RaggedBatch) -> tuple[Any, _Gathered | None]:
        decodes = replace(batch, segments=tuple(s for s in batch.segments if s.length == 1))
        chunks = [s for s in batch.segments if s.length > 1]
        return self._sdpa.prepare(decodes), self._gathered(chunks, batch.positions_T.device) if chunks else None

    def _gathered(self, segments: Sequence[Segment], device: torch.device) -> _Gathered:
        """Each chunk's keys begin with the first one that its first query sees."""
        firsts = [self._sdpa.first_key(s.start) for s in segments]
        kv_rows = [s.kv_rows(first, self._sdpa.page_size) for s, first in zip(segments, firsts, strict=True)]
        q, k = [s.length for s in segments], [len(own) for own in kv_rows]
        bounds = put([*accumulate(q, initial=0), *accumulate(k, initial=0)], device, torch.int32)
        cu_q, cu_k = bounds.split(len(segments) + 1)
        kv_rows_L = put([row for own in kv_rows for row in own], device, torch.int64)
        return _Gathered(_rows(segments, device), kv_rows_L, (cu_q, cu_k, max(q), max(k)))

    def attend(
        self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: tuple[Any, _Gathered | None]
    ) -> torch.Tensor:
        decodes, chunks = prepared
        out = self._sdpa.attend(q_THd, cache, layer, decodes)
        if chunks is not None:
            k_LNd, v_LNd = cache.read(layer, chunks.kv_rows_L)
            out[chunks.rows] = self._varlen_attn(q_THd[chunks.rows], k_LNd, v_LNd, *chunks.bounds, **self._options)
        return out


def flash_can_serve(dtype: torch.dtype, device: torch.device, head_dim: int) -> bool:
    return device.type == "cuda" and dtype in _HALVES and head_dim % 8 == 0 and head_dim <= 256
