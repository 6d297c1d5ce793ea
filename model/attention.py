"""Causal grouped-query attention over the paged cache: one small interface, chosen by probing.

H: query heads, N: KV heads, d: head dimension. The sliding window is HF's: query i sees keys j with i-W < j <= i.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from model.kv_cache import PagedKVCache
from model.ragged import RaggedBatch, Segment


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


class SdpaBackend:
    """torch's scaled_dot_product_attention, one call per sequence: runs everywhere, and what a sequence gets
    does not depend on who shares its batch.
    """

    name = "sdpa"
    page_multiple = 1

    def __init__(self, window: int | None) -> None:
        self.window = window

    def prepare(self, batch: RaggedBatch) -> list[tuple[Segment, int, torch.Tensor | None, bool]]:
        """Per segment: the first key that any of its queries sees, its mask, and whether plain causal will do."""
        device = batch.positions_T.device
        return [(s, self._first_key(s.start), *self._mask(s, device)) for s in batch.segments]

    def _first_key(self, position: int) -> int:
        return 0 if self.window is None else max(0, position - self.window + 1)

    def _mask(self, s: Segment, device: torch.device) -> tuple[torch.Tensor | None, bool]:
        if s.length == 1:
            return None, False  # the keys read are exactly those the one query sees
        if s.start == 0 and (self.window is None or s.length <= self.window):
            return None, True
        queries = torch.arange(s.start, s.kv_length, device=device)[:, None]
        keys = torch.arange(self._first_key(s.start), s.kv_length, device=device)[None, :]
        mask = keys <= queries
        if self.window is not None:
            mask &= keys > queries - self.window
        return mask, False

    def attend(
        self,
        q_THd: torch.Tensor,
        cache: PagedKVCache,
        layer: int,
        prepared: list[tuple[Segment, int, torch.Tensor | None, bool]],
    ) -> torch.Tensor:
        """See `AttentionBackend.attend`."""
        out = torch.empty_like(q_THd)
        for s, first, mask, causal in prepared:
            k, v = cache.read(layer, s.pages, first, s.kv_length)
            q = q_THd[s.row : s.row + s.length].transpose(0, 1)[None]
            y = F.scaled_dot_product_attention(
                q, k.transpose(0, 1)[None], v.transpose(0, 1)[None], attn_mask=mask, is_causal=causal, enable_gqa=True
            )
            out[s.row : s.row + s.length] = y[0].transpose(0, 1)
        return out


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
    return SdpaBackend(window)
