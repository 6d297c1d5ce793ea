"""Queries of several sequences, and their keys and values in scattered pages: what attention backends are compared on.

T: rows of the batch, H: query heads, d: head dimension.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from model.attention.attention import AttentionBackend
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.config import MixtralConfig

MIXTRAL = MixtralConfig(num_hidden_layers=2)
TINY = MixtralConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """`segments` lie one after the other in the rows of `q_THd`; all of their keys are in layer 0 of the cache."""

    cache: PagedKVCache
    segments: tuple[Segment, ...]
    q_THd: torch.Tensor

    @classmethod
    def build(
        cls,
        config: MixtralConfig,
        chunks: Sequence[tuple[int, int]],
        page_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "Scene":
        """`chunks` gives each sequence's (start, length). The same call makes the same scene."""
        source = torch.Generator(device).manual_seed(11)
        counts = [-(-(start + length) // page_size) for start, length in chunks]
        cache = PagedKVCache(replace(config, num_hidden_layers=1), sum(counts) + 3, page_size, dtype, device)
        cache.keys.normal_(generator=source)
        cache.values.normal_(generator=source)
        pool = random.Random(12).sample(range(cache.page_count), sum(counts))
        segments, row = list[Segment](), 0
        for (start, length), count in zip(chunks, counts, strict=True):
            segments.append(Segment(row, length, start, [pool.pop() for _ in range(count)]))
            row += length
        shape = (row, config.num_attention_heads, config.head_dim)
        return cls(cache, tuple(segments), torch.randn(shape, dtype=dtype, device=device, generator=source))

    def widened(self, config: MixtralConfig) -> "Scene":
        """The same numbers in fp64."""
        small = self.cache
        one = replace(config, num_hidden_layers=1)
        cache = PagedKVCache(one, small.page_count, small.page_size, torch.float64, self.q_THd.device)
        cache.keys.copy_(small.keys)
        cache.values.copy_(small.values)
        return Scene(cache, self.segments, self.q_THd.double())

    def attend(self, backend: AttentionBackend, parts: Iterable[Sequence[Segment]] | None = None) -> torch.Tensor:
        """The result of each row when every part is a batch of its own, all at once by default: [T, H, d]. NaN where no
        part has the row.
        """
        out_THd = torch.full_like(self.q_THd, torch.nan)
        for part in [self.segments] if parts is None else parts:
            rows, moved = list[int](), list[Segment]()
            for s in part:
                moved.append(replace(s, row=len(rows)))
                rows += range(s.row, s.row + s.length)
            device = self.q_THd.device
            batch = RaggedBatch.build(moved, [0] * len(rows), [], self.cache.page_size, device)
            rows_R = torch.tensor(rows, device=device)
            out_THd[rows_R] = backend.attend(self.q_THd[rows_R], self.cache, 0, backend.prepare(batch))
        return out_THd
