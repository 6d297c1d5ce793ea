"""Where a sequence can begin when it enters its slot, with what is in the KV cache already."""

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.policy.scheduling.blocks import BlockPool
from cluster.policy.scheduling.limits import Limits
from cluster.policy.scheduling.prefix import extend_keys, first_visible, ready_pages
from cluster.policy.scheduling.sequence import Sequence


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

    def new_pages(self, pool: BlockPool) -> int:
        """Shared pages that no other sequence holds: sharing them takes as many free ones."""
        return sum(not pool.holders(page) for page in self.shared)


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
    """All of the prompt but its last token, as `other` has computed it.

    Example: page_size 4, a prompt of 7: page 0 is shared, page 1 (positions 4 and 5) copied, position 6 is run.
    """
    position, size = sequence.prompt_length - 1, limits.page_size
    dropped = first_visible(position, limits.window, size)
    if other.computed < position or other.dropped > dropped:
        return PrefixHit()
    full, rest = divmod(position, size)
    return PrefixHit(position, dropped, tuple(other.pages[dropped:full]), other.pages[full] if rest else None)
