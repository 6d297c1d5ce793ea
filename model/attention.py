"""Causal grouped-query attention over the paged cache: one small interface, chosen by probing.

T: tokens of the batch, H: query heads, N: KV heads, G = H / N, d: head dimension, L: keys of a call, B: sequences of
a call. The sliding window is HF's: query i sees keys j with i-W < j <= i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from model.kv_cache import PagedKVCache
from model.ragged import RaggedBatch, Segment

_STACKED_ROWS = 1 << 16  # keys that one call of decodes may gather, which bounds its memory


class AttentionBackend(Protocol):
    """`prepare` is called once a step, `attend` once a layer with what it returned."""

    name: str
    page_multiple: int  # page_size must be a multiple of this

    def prepare(self, batch: RaggedBatch) -> Any:
        """Masks, offsets and tables that all layers of the step share."""
        ...

    def attend(self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: Any) -> torch.Tensor:
        """Attention output [T, H, d]; the step's own keys and values are in the cache already."""
        ...


@dataclass(frozen=True, slots=True)
class _Prefill:
    """A chunk of several queries: its rows of the batch, the KV slots of its keys [L], and who sees whom."""

    rows: slice
    slots_L: torch.Tensor
    mask: torch.Tensor | None  # [queries, L]
    causal: bool


@dataclass(frozen=True, slots=True)
class _Decode:
    """B sequences with one query each and up to L keys; what they have too few of is masked."""

    rows_B: torch.Tensor
    slots_BL: torch.Tensor
    mask_B11L: torch.Tensor


class SdpaBackend:
    """torch's scaled_dot_product_attention: runs everywhere.

    What a sequence gets does not depend, to the bit, on who shares its batch. A prompt's chunk is a call of its own.
    Sequences with one query are stacked with those of about their length, padded to a size that their own length
    decides; the kernel treats each by itself.
    """

    name = "sdpa"
    page_multiple = 1

    def __init__(self, window: int | None, page_size: int) -> None:
        self.window, self.page_size = window, page_size

    def prepare(self, batch: RaggedBatch) -> list[_Prefill | _Decode]:
        """The calls of a layer: which keys are read, and what is masked."""
        device = batch.positions_T.device
        stacks: dict[int, list[Segment]] = {}
        calls: list[_Prefill | _Decode] = []
        for s in batch.segments:
            if s.length > 1:
                calls.append(self._prefill(s, device))
            else:
                stacks.setdefault(padded(s.kv_length - self._first_key(s.start)), []).append(s)
        for width, stack in stacks.items():
            most = max(1, _STACKED_ROWS // width)
            calls += [self._decode(stack[i : i + most], width, device) for i in range(0, len(stack), most)]
        return calls

    def _first_key(self, position: int) -> int:
        return 0 if self.window is None else max(0, position - self.window + 1)

    def _prefill(self, s: Segment, device: torch.device) -> _Prefill:
        rows, first = slice(s.row, s.row + s.length), self._first_key(s.start)
        slots_L = torch.tensor(s.slots(first, self.page_size), dtype=torch.int64, device=device)
        if s.start == 0 and (self.window is None or s.length <= self.window):
            return _Prefill(rows, slots_L, None, True)
        queries = torch.arange(s.start, s.kv_length, device=device)[:, None]
        keys = torch.arange(first, s.kv_length, device=device)[None, :]
        mask = keys <= queries
        if self.window is not None:
            mask &= keys > queries - self.window
        return _Prefill(rows, slots_L, mask, False)

    def _decode(self, stack: Sequence[Segment], width: int, device: torch.device) -> _Decode:
        """Example with page_size 4 and width 4: a query at position 5 in pages [9, 5] that sees from 4 on has keys
        at slots 5*4+0, 5*4+1; the last one is repeated, and masked, up to the width.
        """
        slots, lengths = [], []
        for s in stack:
            own = s.slots(self._first_key(s.start), self.page_size)
            lengths.append(len(own))
            slots.append(own + own[-1:] * (width - len(own)))
        mask_BL = torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]
        rows_B = torch.tensor([s.row for s in stack], dtype=torch.int64, device=device)
        return _Decode(rows_B, torch.tensor(slots, device=device), mask_BL[:, None, None].to(device))

    def attend(
        self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: list[_Prefill | _Decode]
    ) -> torch.Tensor:
        """See `AttentionBackend.attend`."""
        out = torch.empty_like(q_THd)
        for call in prepared:
            if isinstance(call, _Prefill):
                k_LNd, v_LNd = cache.read(layer, call.slots_L)
                y_1HLd = F.scaled_dot_product_attention(
                    q_THd[call.rows].transpose(0, 1)[None],
                    k_LNd.transpose(0, 1)[None],
                    v_LNd.transpose(0, 1)[None],
                    attn_mask=call.mask,
                    is_causal=call.causal,
                    enable_gqa=True,
                )
                out[call.rows] = y_1HLd[0].transpose(0, 1)
            else:
                out[call.rows_B] = self._attend_decode(q_THd[call.rows_B], cache, layer, call)
        return out

    @staticmethod
    def _attend_decode(q_BHd: torch.Tensor, cache: PagedKVCache, layer: int, call: _Decode) -> torch.Tensor:
        """The query heads that share a KV head are its queries, so that no key is copied for each of them."""
        (count, width), (_, heads, d) = call.slots_BL.shape, q_BHd.shape
        keys, values = cache.read(layer, call.slots_BL.flatten())
        k_BNLd = keys.view(count, width, -1, d).transpose(1, 2)
        v_BNLd = values.view(count, width, -1, d).transpose(1, 2)
        q_BNGd = q_BHd.view(count, k_BNLd.shape[1], -1, d)
        return F.scaled_dot_product_attention(q_BNGd, k_BNLd, v_BNLd, attn_mask=call.mask_B11L).view(count, heads, d)


def padded(keys: int) -> int:
    """So many keys rounded up to a multiple of 64, beyond 512 to an eighth of the next power of two."""
    step = max(64, 1 << max(0, (keys - 1).bit_length() - 3))
    return -(-keys // step) * step


class FlashBackend:
    """flash-attn 2 on CUDA (Dao 2023): varlen prefill and paged decode straight from the pages."""

    name = "flash_attn"
    page_multiple = 256  # flash-attn 2 reads pages in multiples of 256 rows

    def __init__(self, window: int | None) -> None:
        import flash_attn

        self._lib = flash_attn
        self._window = (-1, -1) if window is None else (window - 1, 0)

    def prepare(self, batch: RaggedBatch) -> dict[str, Any]:
        """Cumulative lengths and the padded page table of the step."""
        device = batch.positions_T.device
        q_lens = [s.length for s in batch.segments]
        k_lens = [s.kv_length for s in batch.segments]
        width = max(len(s.pages) for s in batch.segments)
        table = [list(s.pages) + [0] * (width - len(s.pages)) for s in batch.segments]

        def as_int32(values: Sequence[int] | Sequence[list[int]]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int32, device=device)

        return {
            "table": as_int32(table),
            "k_lens": as_int32(k_lens),
            "cu_q": F.pad(as_int32(q_lens).cumsum(0, dtype=torch.int32), (1, 0)),
            "cu_k": F.pad(as_int32(k_lens).cumsum(0, dtype=torch.int32), (1, 0)),
            "max_q": max(q_lens),
            "max_k": max(k_lens),
        }

    def attend(self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: dict[str, Any]) -> torch.Tensor:
        """See `AttentionBackend.attend`."""
        keys, values = cache.keys[layer], cache.values[layer]
        if prepared["max_q"] == 1:
            out = self._lib.flash_attn_with_kvcache(
                q_THd[:, None],
                keys,
                values,
                cache_seqlens=prepared["k_lens"],
                block_table=prepared["table"],
                causal=True,
                window_size=self._window,
            )
            return torch.as_tensor(out)[:, 0]
        out = self._lib.flash_attn_varlen_func(
            q_THd,
            keys,
            values,
            prepared["cu_q"],
            prepared["cu_k"],
            prepared["max_q"],
            prepared["max_k"],
            causal=True,
            window_size=self._window,
            block_table=prepared["table"],
        )
        return torch.as_tensor(out)


def flash_attn_usable(dtype: torch.dtype, device: torch.device, head_dim: int) -> bool:
    """Whether flash-attn 2 can serve this: probed by attribute, since other packages install the same name."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or head_dim % 8 or head_dim > 256:
        return False
    try:
        import flash_attn
    except ImportError:
        return False
    return hasattr(flash_attn, "flash_attn_varlen_func") and hasattr(flash_attn, "flash_attn_with_kvcache")


def choose_backend(
    dtype: torch.dtype, device: torch.device, head_dim: int, window: int | None, page_size: int
) -> AttentionBackend:
    """The fastest backend that runs here; `page_size` must suit flash-attn for it to be chosen."""
    if flash_attn_usable(dtype, device, head_dim) and page_size % FlashBackend.page_multiple == 0:
        return FlashBackend(window)
    return SdpaBackend(window, page_size)
