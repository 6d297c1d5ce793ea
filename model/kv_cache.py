"""The paged KV cache: a pool of pages per layer, addressed through each sequence's page table (PagedAttention).

P: pages, S: rows of a page, N: KV heads, d: head dimension.
"""

from collections.abc import Iterable, Sequence

import torch

from model.config import MixtralConfig


class PagedKVCache:
    """Keys and values of all layers, each [layers, P, S, N, d]. Which page belongs to whom is not its business."""

    def __init__(
        self,
        config: MixtralConfig,
        page_count: int,
        page_size: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.page_count, self.page_size = page_count, page_size
        shape = (config.num_hidden_layers, page_count, page_size, config.num_key_value_heads, config.head_dim)
        # Written to, so that memory that is not there shows now and not under load (zeros() alone maps it lazily).
        self.keys = torch.empty(shape, dtype=dtype, device=device).zero_()
        self.values = torch.empty(shape, dtype=dtype, device=device).zero_()

    def write(self, layer: int, slots_T: torch.Tensor, k_TNd: torch.Tensor, v_TNd: torch.Tensor) -> None:
        """Store one layer's keys and values at flat slots (page * S + offset)."""
        self.keys[layer].flatten(0, 1)[slots_T] = k_TNd
        self.values[layer].flatten(0, 1)[slots_T] = v_TNd

    def copy(self, pages: Iterable[tuple[int, int]]) -> None:
        """Copy whole pages of all layers, (from, to), one after the other."""
        for source, target in pages:
            self.keys[:, target] = self.keys[:, source]
            self.values[:, target] = self.values[:, source]

    def read(self, layer: int, pages: Sequence[int], begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [end - begin, N, d] of positions [begin, end) of a sequence with table `pages`."""
        first, last = begin // self.page_size, -(-end // self.page_size)
        index = torch.tensor(pages[first:last], dtype=torch.int64, device=self.keys.device)
        low = begin - first * self.page_size
        rows = slice(low, low + end - begin)
        return self.keys[layer][index].flatten(0, 1)[rows], self.values[layer][index].flatten(0, 1)[rows]


def page_bytes(config: MixtralConfig, page_size: int, dtype_bytes: int) -> int:
    """Bytes of one page over all layers, keys and values together."""
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * dtype_bytes
    return per_token * page_size
