"""The paged cache: what is written at a sequence's slots is read back by its pages, and nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import Segment
from model.config import MixtralConfig
from tests.checkpoints import tiny

CONFIG = MixtralConfig.from_hf(tiny())  # 2 layers, 2 KV heads of 8


@settings(deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 6), st.integers(1, 20))
def test_positions_are_read_back_by_their_page_table(data: st.DataObject, page_size: int, length: int) -> None:
    cache = PagedKVCache(CONFIG, 24, page_size, torch.float32)
    pages = data.draw(st.permutations(range(24)))[: -(-length // page_size)]
    keys, values = torch.randn(length, 2, 8), torch.randn(length, 2, 8)
    slots = torch.tensor([pages[p // page_size] * page_size + p % page_size for p in range(length)])
    split = data.draw(st.integers(0, length))
    for part in (slice(split), slice(split, length)):  # as two chunks
        cache.write(1, slots[part], keys[part], values[part])
    begin = data.draw(st.integers(0, length))
    end = data.draw(st.integers(begin, length))
    read = cache.read(
        1, torch.tensor(Segment(0, end - begin, begin, pages).kv_rows(begin, page_size), dtype=torch.int64)
    )
    assert torch.equal(read[0], keys[begin:end]) and torch.equal(read[1], values[begin:end])


def test_writing_leaves_other_layers_and_slots_alone() -> None:
    cache = PagedKVCache(CONFIG, 3, 4, torch.float32)
    cache.write(1, torch.tensor([5, 11]), torch.ones(2, 2, 8), torch.full((2, 2, 8), 2.0))
    assert cache.keys[0].count_nonzero() == 0 and cache.values[0].count_nonzero() == 0
    assert cache.keys[1].sum(dim=(-1, -2)).nonzero().tolist() == [[1, 1], [2, 3]]
    assert cache.values[1].sum(dim=(-1, -2)).nonzero().tolist() == [[1, 1], [2, 3]]
    assert cache.values[1, 2, 3].unique().tolist() == [2.0]


def test_table_entries_before_the_range_are_not_looked_up() -> None:
    gone = 10**9  # a page that does not exist: it was given back
    assert Segment(0, 1, 10, [gone, gone, 2]).kv_rows(8, 4) == [8, 9, 10]
    assert Segment(0, 1, 10, [gone, gone, 2]).kv_rows(10, 4) == [10]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bytes_of_tokens_are_those_of_the_memory(dtype: torch.dtype) -> None:
    cache = PagedKVCache(CONFIG, 7, 5, dtype)
    assert cache.keys.nbytes + cache.values.nbytes == 7 * 5 * CONFIG.kv_token_bytes(dtype.itemsize)


def test_page_of_mixtral_holds_128_kib_a_token_in_bf16() -> None:
    assert MixtralConfig().kv_token_bytes(2) == 128 * 1024
