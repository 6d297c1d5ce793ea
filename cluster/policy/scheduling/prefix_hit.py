"""Where a sequence can begin when it enters its slot, with what is in the KV cache already. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.policy.scheduling.blocks import BlockPool
from cluster.policy.scheduling.limits import Limits
from cluster.policy.scheduling.prefix import extend_keys, first_visible, ready_pages
from cluster.policy.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Entry:
    """The first `position` tokens need not be run: after `dropped` pages that it will never see, the next ones are
    `shared` with whoever holds them. The last of its pages, if `position` lies within, it will write to, so it gets
    a copy of `copied` there.
    """

    position: int = 0
    dropped: int = 0
    shared: tuple[int, ...] = ()
    copied: int | None = None

    def new_pages(self, pool: BlockPool) -> int:
        """Pages of it that are not held by others anyhow."""
        return sum(not pool.holders(page) for page in self.shared)


def find_entry(sequence: Sequence, running: Iterable[Sequence], pool: BlockPool, limits: Limits) -> Entry:
    """The furthest one. At least the last token is always run: the next is drawn from its logits."""
    if sequence.needs_scores:
        return Entry()
    found = [_from_sibling(sequence, other, limits) for other in siblings(sequence, running)]
    if limits.prefix_caching:
        found.append(_from_cache(sequence, pool, limits))
    return max(found, key=lambda entry: entry.position, default=Entry())


def siblings(sequence: Sequence, running: Iterable[Sequence]) -> list[Sequence]:
    """Those that run and have the same prompt: further outputs of one request."""
    return [other for other in running if other.family == sequence.family] if sequence.family else []


def _from_cache(sequence: Sequence, pool: BlockPool, limits: Limits) -> Entry:
    size, window = limits.page_size, limits.window
    full = (len(sequence.token_ids) - 1) // size
    extend_keys(sequence.page_keys, sequence.token_ids, size, full, sequence.tenant)
    keys = sequence.page_keys[:full]
    ready = ready_pages(keys, pool, window, size)
    dropped = first_visible(ready * size, window, size)
    pages = [pool.find(key) for key in keys[dropped:ready]]
    return Entry(ready * size, dropped, tuple(page for page in pages if page is not None))


def _from_sibling(sequence: Sequence, other: Sequence, limits: Limits) -> Entry:
    """All of the prompt but its last token, as `other` has computed it.

    Example: page_size 4, a prompt of 7: page 0 is shared, page 1 (positions 4 and 5) copied, position 6 is run.
    """
    position, size = sequence.prompt_length - 1, limits.page_size
    dropped = first_visible(position, limits.window, size)
    if other.computed < position or other.dropped > dropped:
        return Entry()
    full, rest = divmod(position, size)
    return Entry(position, dropped, tuple(other.pages[dropped:full]), other.pages[full] if rest else None)
