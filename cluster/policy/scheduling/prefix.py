"""Where a sequence can begin when it enters its slot: pages of the KV cache are named by what they hold."""

from array import array
from collections.abc import Iterable
from collections.abc import Sequence as Run
from dataclasses import dataclass
from hashlib import blake2b

from cluster.policy.scheduling.blocks import BlockPool
from cluster.policy.scheduling.limits import Limits, first_visible
from cluster.policy.scheduling.sequence import Sequence

_ROOT = b"eightwinds"


def extend_keys(keys: list[bytes], token_ids: Run[int], page_size: int, pages: int, tenant: str = "") -> None:
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


def ready_pages(keys: Run[bytes], pool: BlockPool, window: int | None, page_size: int) -> int:
    """The most pages of a sequence that need not be computed: all that the next position sees can be found. Under
    a sliding window, older ones may be missing. Example: page_size 4, window 6, five keys of which the pool knows 0, 2
    and 3: a query at position 16 sees keys from 11, in pages 2 and 3, so 4 pages are ready.
    """
    end = page = len(keys)
    while page > first_visible(end * page_size, window, page_size):
        page -= 1
        if pool.find(keys[page]) is None:
            end = page
    return end


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """The first `position` tokens need not be run: after `dropped` pages that the sequence will never see, the next
    ones are `shared` with their holders. If `position` lies within a page, the sequence will write to that page, so
    it gets a copy of `copied` there.
    """

    position: int = 0
    dropped: int = 0
    shared: tuple[int, ...] = ()
    copied: int | None = None


def find_prefix_hit(sequence: Sequence, running: Iterable[Sequence], pool: BlockPool, limits: Limits) -> PrefixHit:
    """The hit that reaches furthest. The last token is always run: the next is sampled from its logits."""
    if sequence.needs_scores:
        return PrefixHit()
    found = [_from_sibling(sequence, other, limits) for other in siblings(sequence, running)]
    if limits.prefix_caching:
        found.append(_from_cache(sequence, pool, limits))
    return max(found, key=lambda hit: hit.position, default=PrefixHit())


def siblings(sequence: Sequence, running: Iterable[Sequence]) -> list[Sequence]:
    """Running sequences with the same prompt: further outputs of one request."""
    family = sequence.request.family
    return [other for other in running if other.request.family == family] if family else []


def _from_cache(sequence: Sequence, pool: BlockPool, limits: Limits) -> PrefixHit:
    size, window = limits.page_size, limits.window
    full = (len(sequence.token_ids) - 1) // size
    extend_keys(sequence.page_keys, sequence.token_ids, size, full, sequence.request.tenant)
    keys = sequence.page_keys[:full]
    ready = ready_pages(keys, pool, window, size)
    dropped = first_visible(ready * size, window, size)
    pages = [pool.find(key) for key in keys[dropped:ready]]
    return PrefixHit(ready * size, dropped, tuple(page for page in pages if page is not None))


def _from_sibling(sequence: Sequence, other: Sequence, limits: Limits) -> PrefixHit:
    """All of the prompt but its last token, as `other` has computed it. Example: page_size 4, a prompt of 7: page 0 is
    shared, page 1 (positions 4 and 5) copied, position 6 is run.
    """
    position, size = sequence.prompt_length - 1, limits.page_size
    dropped = first_visible(position, limits.window, size)
    if other.computed < position or other.dropped > dropped:
        return PrefixHit()
    full, rest = divmod(position, size)
    return PrefixHit(position, dropped, tuple(other.pages[dropped:full]), other.pages[full] if rest else None)
