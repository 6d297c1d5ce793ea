"""The flash-attn backend against torch's own attention, on the same pages. Needs a CUDA device and flash-attn 2."""

import random
from collections.abc import Sequence

import pytest
import torch

from model.attention import FlashBackend, SdpaBackend, flash_attn_usable
from model.config import MixtralConfig
from model.kv_cache import PagedKVCache
from model.ragged import RaggedBatch, Segment

DEVICE, HEAD_DIM = torch.device("cuda"), 128
MISSING = (
    "torch sees no CUDA device"
    if not torch.cuda.is_available()
    else "flash-attn 2 is not installed: pip install .[gpu]"
    if not flash_attn_usable(torch.bfloat16, DEVICE, HEAD_DIM)
    else ""
)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

# (start, length) of each chunk in the batch; pages have 256 rows
BATCHES = {
    "prefill": [(0, 300), (0, 1), (0, 517)],
    "decode": [(299, 1), (0, 1), (1023, 1), (256, 1)],
    "later chunks": [(300, 64), (17, 512)],
    "mixed": [(0, 270), (700, 1), (255, 33), (40, 1)],
}


def scene(
    chunks: Sequence[tuple[int, int]], heads: tuple[int, int], dtype: torch.dtype, page_size: int
) -> tuple[RaggedBatch, PagedKVCache, torch.Tensor]:
    """A batch of queries, and its keys and values in scattered pages."""
    config = MixtralConfig(
        num_hidden_layers=1, num_attention_heads=heads[0], num_key_value_heads=heads[1], head_dim=HEAD_DIM
    )
    torch.manual_seed(5)
    counts = [-(-(start + length) // page_size) for start, length in chunks]
    cache = PagedKVCache(config, sum(counts) + 3, page_size, dtype, DEVICE)
    cache.keys.normal_()
    cache.values.normal_()
    pool = random.Random(6).sample(range(cache.page_count), sum(counts))
    segments, row = list[Segment](), 0
    for (start, length), count in zip(chunks, counts, strict=True):
        segments.append(Segment(row, length, start, [pool.pop() for _ in range(count)]))
        row += length
    batch = RaggedBatch.build(segments, [0] * row, [], page_size, DEVICE)
    return batch, cache, torch.randn(row, heads[0], HEAD_DIM, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize("page_size", [256, 512])
@pytest.mark.parametrize("heads", [(8, 8), (32, 8), (8, 1)], ids=str)
@pytest.mark.parametrize("window", [None, 1, 100, 256, 4096])
@pytest.mark.parametrize("name", BATCHES)
def test_flash_equals_sdpa_in_bf16(name: str, window: int | None, heads: tuple[int, int], page_size: int) -> None:
    batch, cache, q = scene(BATCHES[name], heads, torch.bfloat16, page_size)
    flash, sdpa = FlashBackend(window), SdpaBackend(window, cache.page_size)
    found = flash.attend(q, cache, 0, flash.prepare(batch))
    expected = sdpa.attend(q, cache, 0, sdpa.prepare(batch))
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)  # a few last bits of bf16
