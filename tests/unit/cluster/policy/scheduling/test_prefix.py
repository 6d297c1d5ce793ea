"""Which part of a prompt is in the cache already."""

import pytest

from cluster.policy.scheduling.blocks import BlockPool
from cluster.policy.scheduling.prefix import extend_keys, first_visible, ready_pages


def keys_of(token_ids: list[int], page_size: int = 4) -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, token_ids, page_size, len(token_ids) // page_size)
    return keys


def test_a_key_stands_for_everything_up_to_its_end() -> None:
    text = list(range(12))
    keys = keys_of(text)
    assert len(set(keys)) == 3
    assert keys_of(text[:9]) == keys[:2], "what follows changes nothing"
    assert keys_of([99, *text[1:]])[1:] != keys[1:], "equal pages after other beginnings are others"
    assert keys_of([0, 0, 0, 0, 0, 0, 0, 0])[0] != keys_of([0, 0, 0, 0, 0, 0, 0, 0])[1]


def test_tenants_have_keys_of_their_own() -> None:
    text = list(range(8))
    by_tenant = []
    for tenant in ("", "alice", "bob", "eightwinds"):
        keys: list[bytes] = []
        extend_keys(keys, text, 4, 2, tenant)
        by_tenant.append(keys)
    assert by_tenant[0] == keys_of(text)
    assert len({key for keys in by_tenant for key in keys}) == 8, "no page of one is found by another"


def test_keys_grow_with_the_text() -> None:
    text = list(range(20))
    keys: list[bytes] = []
    for pages in (0, 1, 1, 3, 5):
        extend_keys(keys, text, 4, pages)
    assert keys == keys_of(text)


@pytest.mark.parametrize(
    ("position", "window", "page"),
    [(14, 6, 2), (0, 6, 0), (5, 6, 0), (8, 6, 0), (9, 6, 1), (1000, None, 0), (7, 1, 1), (8, 1, 2)],
)
def test_the_first_page_that_is_seen(position: int, window: int | None, page: int) -> None:
    assert first_visible(position, window, page_size=4) == page
    first = 0 if window is None else max(0, position - window + 1)
    assert first // 4 == page


@pytest.mark.parametrize(
    ("known", "window", "ready"),
    [
        ([0, 1, 2, 3, 4], None, 5),
        ([0, 1, 3, 4], None, 2),
        ([1, 2, 3, 4], None, 0),
        ([], None, 0),
        ([0, 2, 3], 6, 4),  # the docstring's example
        ([3, 4], 6, 5),  # a query at position 20 sees keys from 15
        ([0, 1, 2], 6, 3),
        ([4], 6, 0),
        ([4], 4, 5),
    ],
)
def test_ready_pages_are_all_that_the_next_query_sees(known: list[int], window: int | None, ready: int) -> None:
    keys, pool = keys_of(list(range(20))), BlockPool(8)
    pages = pool.take(5)
    for index in known:
        pool.publish(pages[index], keys[index])
    assert ready_pages(keys, pool, window, page_size=4) == ready
