"""Attention backends against a plain loop in fp64, over ragged batches in scattered pages."""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch

from model import attention
from model.attention import AttentionBackend, FlashBackend, SdpaBackend, choose_backend, flash_attn_usable, padded
from model.config import MixtralConfig
from model.kv_cache import PagedKVCache
from model.ragged import RaggedBatch, Segment
from tests.checkpoints import tiny

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 8
CONFIG = MixtralConfig.from_hf(tiny(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM))
WINDOWS = [None, 1, 2, 5, 8, 100]

# (start, length) of each chunk in the batch
BATCHES = {
    "one token": [(0, 1)],
    "one prompt": [(0, 17)],
    "prompts": [(0, 3), (0, 11), (0, 1), (0, 8)],
    "decode": [(7, 1), (0, 1), (30, 1), (8, 1)],
    "later chunks": [(4, 7), (13, 2), (8, 8)],
    "all together": [(0, 9), (21, 1), (5, 6), (0, 1), (3, 1)],
}


@dataclass
class Scene:
    """A batch whose keys and values are in the cache, and the same as plain tensors per segment."""

    batch: RaggedBatch
    cache: PagedKVCache
    q_THd: torch.Tensor
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


def scene(chunks: Sequence[tuple[int, int]], window: int | None, page_size: int) -> Scene:
    """What no query may see holds NaN: rows of other pages, later positions, and those older than the window."""
    rng, source = random.Random(3), torch.Generator().manual_seed(4)
    counts = [-(-(start + length) // page_size) for start, length in chunks]
    pool = rng.sample(range(sum(counts) + 5), sum(counts))
    cache = PagedKVCache(CONFIG, sum(counts) + 5, page_size, torch.float32)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    segments = list[Segment]()
    for (start, length), count in zip(chunks, counts, strict=True):
        row = segments[-1].row + segments[-1].length if segments else 0
        segments.append(Segment(row, length, start, [pool.pop() for _ in range(count)]))
    rows = sum(length for _, length in chunks)
    made = Scene(
        RaggedBatch.build(segments, [0] * rows, [], page_size),
        cache,
        torch.randn(rows, HEADS, HEAD_DIM, generator=source),
    )
    for segment in segments:
        k = torch.randn(segment.kv_length, KV_HEADS, HEAD_DIM, generator=source)
        v = torch.randn(segment.kv_length, KV_HEADS, HEAD_DIM, generator=source)
        first = 0 if window is None else max(0, segment.start - window + 1)
        slots = torch.tensor(
            [segment.pages[p // page_size] * page_size + p % page_size for p in range(first, segment.kv_length)]
        )
        cache.write(1, slots, k[first:], v[first:])
        made.keys.append(k)
        made.values.append(v)
    return made


def plain(s: Scene, window: int | None) -> torch.Tensor:
    """One query at a time, in fp64: query i sees keys j with i - window < j <= i."""
    out = torch.zeros_like(s.q_THd, dtype=torch.float64)
    for segment, k, v in zip(s.batch.segments, s.keys, s.values, strict=True):
        for t in range(segment.length):
            i = segment.start + t
            seen = slice(0 if window is None else max(0, i - window + 1), i + 1)
            for head in range(HEADS):
                own = head // (HEADS // KV_HEADS)
                scores = k[seen, own].double() @ s.q_THd[segment.row + t, head].double() / HEAD_DIM**0.5
                out[segment.row + t, head] = scores.softmax(0) @ v[seen, own].double()
    return out


def attend(backend: AttentionBackend, s: Scene) -> torch.Tensor:
    return backend.attend(s.q_THd, s.cache, 1, backend.prepare(s.batch))


@pytest.mark.parametrize("page_size", [1, 3, 16])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", BATCHES)
def test_sdpa_equals_the_plain_loop_and_reads_no_key_out_of_sight(
    name: str, window: int | None, page_size: int
) -> None:
    s = scene(BATCHES[name], window, page_size)
    torch.testing.assert_close(attend(SdpaBackend(window, page_size), s).double(), plain(s, window), rtol=0, atol=1e-6)


MANY = [
    (0, 9),
    (21, 1),
    (5, 6),
    (0, 1),
    (3, 1),
    (62, 1),
    (63, 1),
    (64, 1),
    (127, 1),
    (128, 1),
    (600, 1),
    (90, 3),
    (70, 1),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("window", [None, 5, 100])
def test_batch_mates_do_not_change_a_bit(
    window: int | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = scene(MANY, window, 3)
    s.cache.keys, s.cache.values, s.q_THd = s.cache.keys.to(dtype), s.cache.values.to(dtype), s.q_THd.to(dtype)
    together = attend(SdpaBackend(window, 3), s)
    monkeypatch.setattr(attention, "_STACKED_ROWS", 150)  # two of a stack at a time
    assert torch.equal(attend(SdpaBackend(window, 3), s), together)
    for segment in s.batch.segments:
        rows = slice(segment.row, segment.row + segment.length)
        alone = RaggedBatch.build(
            [Segment(0, segment.length, segment.start, segment.pages)], [0] * segment.length, [], 3
        )
        assert torch.equal(attend(SdpaBackend(window, 3), Scene(alone, s.cache, s.q_THd[rows])), together[rows])


def test_a_stack_is_padded_a_little() -> None:
    assert [padded(n) for n in (1, 64, 65, 512, 513, 1024, 1025)] == [64, 64, 128, 512, 640, 1024, 1280]
    sizes = [padded(n) for n in range(1, 5000)]
    assert all(n <= size < n + max(64, n / 4) for n, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", BATCHES)
def test_flash_is_called_for_the_same_result(name: str, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is a double that computes what flash-attn documents; tests/gpu has the real one."""
    monkeypatch.setitem(sys.modules, "flash_attn", documented_flash_attn())
    s = scene(BATCHES[name], window, 4)
    s.cache.keys.nan_to_num_()  # the double masks what it reads, as the kernel does
    s.cache.values.nan_to_num_()
    torch.testing.assert_close(attend(FlashBackend(window), s).double(), plain(s, window), rtol=0, atol=1e-6)


def documented_flash_attn() -> ModuleType:
    """flash-attn 2's two functions: causal masks and windows are aligned to the last key; both ends inclusive."""

    def paged(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, length: int, window: tuple[int, int]
    ) -> torch.Tensor:
        groups = q.shape[1] // k.shape[2]
        k, v = (x[table.long()].flatten(0, 1)[:length].repeat_interleave(groups, dim=1) for x in (k, v))
        i, j = torch.arange(len(q))[:, None] + length - len(q), torch.arange(length)[None]
        left, right = (length if size < 0 else size for size in window)
        seen = (j <= i) & (j >= i - left) & (j <= i + right)
        scores = torch.einsum("ihd,jhd->hij", q, k) / q.shape[2] ** 0.5
        return torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)

    def flash_attn_varlen_func(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        *,
        causal: bool,
        window_size: tuple[int, int],
        block_table: torch.Tensor,
    ) -> torch.Tensor:
        assert causal and {cu_seqlens_q.dtype, cu_seqlens_k.dtype, block_table.dtype} == {torch.int32}
        assert max_seqlen_q == int(cu_seqlens_q.diff().max()) and max_seqlen_k == int(cu_seqlens_k.diff().max())
        parts = q.split(cu_seqlens_q.diff().tolist())
        lengths = cu_seqlens_k.diff().tolist()
        return torch.cat(
            [paged(x, k, v, row, n, window_size) for x, row, n in zip(parts, block_table, lengths, strict=True)]
        )

    def flash_attn_with_kvcache(
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        *,
        cache_seqlens: torch.Tensor,
        block_table: torch.Tensor,
        causal: bool,
        window_size: tuple[int, int],
    ) -> torch.Tensor:
        assert causal and q.shape[1] == 1 and {cache_seqlens.dtype, block_table.dtype} == {torch.int32}
        rows = zip(q, block_table, cache_seqlens.tolist(), strict=True)
        return torch.stack([paged(x, k_cache, v_cache, row, n, window_size) for x, row, n in rows])

    module: Any = ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func
    module.flash_attn_with_kvcache = flash_attn_with_kvcache
    return module  # type: ignore[no-any-return]


CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_flash_is_chosen_where_it_can_serve(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", documented_flash_attn())
    assert isinstance(choose_backend(dtype, CUDA, 128, 4096, 256), FlashBackend)
    assert isinstance(choose_backend(dtype, CUDA, 64, None, 512), FlashBackend)


@pytest.mark.parametrize(
    ("dtype", "device", "head_dim", "page_size"),
    [
        (torch.float32, CUDA, 128, 256),
        (torch.bfloat16, CPU, 128, 256),
        (torch.bfloat16, CUDA, 36, 256),
        (torch.bfloat16, CUDA, 512, 256),
        (torch.bfloat16, CUDA, 128, 16),
        (torch.bfloat16, CUDA, 128, 384),
    ],
    ids=str,
)
def test_sdpa_is_chosen_where_flash_cannot_serve(
    dtype: torch.dtype, device: torch.device, head_dim: int, page_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", documented_flash_attn())
    assert isinstance(choose_backend(dtype, device, head_dim, None, page_size), SdpaBackend)


def test_another_package_of_the_name_is_no_flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    assert not flash_attn_usable(torch.bfloat16, CUDA, 128)


def test_absence_of_flash_attn_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # its import raises ImportError
    assert not flash_attn_usable(torch.bfloat16, CUDA, 128)
    assert isinstance(choose_backend(torch.bfloat16, CUDA, 128, None, 256), SdpaBackend)


def test_window_is_kept_by_the_backend_that_is_chosen() -> None:
    assert choose_backend(torch.float32, CPU, 8, 7, 16).__dict__["window"] == 7
