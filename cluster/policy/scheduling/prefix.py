"""Which part of a sequence's KV cache is there already: pages named by what they hold, and how far they reach."""

from array import array
from collections.abc import Sequence
from hashlib import blake2b

from cluster.policy.scheduling.blocks import BlockPool

_ROOT = b"eightwinds"


def extend_keys(keys: list[bytes], token_ids: Sequence[int], page_size: int, pages: int, tenant: str = "") -> None:
    """Append keys until there are `pages` of them. Each `tenant` has keys of its own: the time to an answer, or the
    reported cache hits, would else tell what others had asked.

    A page's key hashes its tokens and the key before it, so it stands for everything up to its end. The hash is
    cryptographic: a client that could make two prompts collide would read another's cache.
    """
    root = blake2b(tenant.encode(), key=_ROOT, digest_size=16).digest() if tenant else _ROOT
    while len(keys) < pages:
        begin = len(keys) * page_size
        tokens = array("i", token_ids[begin : begin + page_size])
        keys.append(blake2b((keys[-1] if keys else root) + tokens.tobytes(), digest_size=16).digest())


def first_visible(position: int, window: int | None, page_size: int) -> int:
    """The first page that a query at `position` or later sees: key j is seen from i while j > i - window.

    Example: page_size 4, window 6, position 14: key 9 is the first one seen, so pages 0 and 1 are not.
    """
    return 0 if window is None else max(0, (position - window + 1) // page_size)


def ready_pages(keys: Sequence[bytes], pool: BlockPool, window: int | None, page_size: int) -> int:
    """The most pages of a sequence that need not be computed: all that the next position sees can be found.

    Under a sliding window, older ones may be missing. Example: page_size 4, window 6, five keys of which the pool
    knows 0, 2 and 3: a query at position 16 sees keys from 11, in pages 2 and 3, so 4 pages are ready.
    """
    end = page = len(keys)
    while page > first_visible(end * page_size, window, page_size):
        page -= 1
        if pool.find(keys[page]) is None:
            end = page
    return end
