"""Doubles of the flash-attention libraries: they compute what the documentation of each says. tests/gpu has the real
ones.
"""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put all three in place of whatever is there."""
    monkeypatch.setitem(sys.modules, "flash_attn", documented_flash_attn())
    monkeypatch.setitem(sys.modules, "flash_attn_interface", documented_flash_attn_3())
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", documented_varlen_attn)


def paged(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, length: int, window: tuple[int, int]
) -> torch.Tensor:
    k, v = (x[table.long()].flatten(0, 1)[:length] for x in (k, v))
    return causal(q, k, v, window)


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """Causal masks and windows are aligned to the last key; both ends inclusive, -1 is no end."""
    length, groups = len(k), q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    i, j = torch.arange(len(q))[:, None] + length - len(q), torch.arange(length)[None]
    left, right = (length if size < 0 else size for size in window)
    seen = (j <= i) & (j >= i - left) & (j <= i + right)
    scores = torch.einsum("ihd,jhd->hij", q, k) / q.shape[2] ** 0.5
    return torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)


def documented_flash_attn() -> ModuleType:
    """flash-attn 2's two functions."""

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
        num_splits: int,
    ) -> torch.Tensor:
        assert num_splits == 1, "how keys are split depends on the batch"
        assert causal and q.shape[1] == 1 and {cache_seqlens.dtype, block_table.dtype} == {torch.int32}
        rows = zip(q, block_table, cache_seqlens.tolist(), strict=True)
        return torch.stack([paged(x, k_cache, v_cache, row, n, window_size) for x, row, n in rows])

    module: Any = ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func
    module.flash_attn_with_kvcache = flash_attn_with_kvcache
    return module  # type: ignore[no-any-return]


def documented_flash_attn_3() -> ModuleType:
    """FlashAttention-3's one function, for queries of any lengths."""

    def flash_attn_with_kvcache(
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        *,
        cache_seqlens: torch.Tensor,
        page_table: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        max_seqlen_q: int,
        causal: bool,
        window_size: tuple[int, int],
        num_splits: int,
    ) -> torch.Tensor:
        assert causal and num_splits == 1
        assert {cache_seqlens.dtype, page_table.dtype, cu_seqlens_q.dtype} == {torch.int32}
        assert max_seqlen_q == int(cu_seqlens_q.diff().max())
        rows = zip(q.split(cu_seqlens_q.diff().tolist()), page_table, cache_seqlens.tolist(), strict=True)
        return torch.cat([paged(x, k_cache, v_cache, row, n, window_size) for x, row, n in rows])

    module: Any = ModuleType("flash_attn_interface")
    module.flash_attn_with_kvcache = flash_attn_with_kvcache
    return module  # type: ignore[no-any-return]


def documented_varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    num_splits: int | None = None,
) -> torch.Tensor:
    """torch's varlen_attn as in 2.13."""
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert num_splits == 1, "how keys are split depends on the batch"
    q_lengths, k_lengths = cu_seq_q.diff().tolist(), cu_seq_k.diff().tolist()
    assert (max_q, max_k) == (max(q_lengths), max(k_lengths)) and window_size[1] == 0
    parts = zip(query.split(q_lengths), key.split(k_lengths), value.split(k_lengths), strict=True)
    return torch.cat([causal(q, k, v, window_size) for q, k, v in parts])
