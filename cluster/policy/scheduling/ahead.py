"""The step behind the one that is under way, while its tokens are not known here yet: the head will have drawn them."""

from collections.abc import Collection

from cluster.policy.scheduling.blocks import BlockPool
from cluster.policy.scheduling.sequence import Sequence
from model.batch import Chunk


def chunks_ahead(running: Collection[Sequence], pool: BlockPool, page_size: int) -> list[Chunk]:
    """A decode for each sequence that goes on for certain but for a stop id; [] if a result must be awaited first: a
    prompt is amid its chunks, an output must keep to a constraint, or pages lack. Takes the pages that they need. A
    sequence that turns out to have ended runs a token too many, which nobody is told of.
    """
    if any(s.planned != s.pending or s.request.sampling.constraint for s in running):
        return []
    going_on = [s for s in running if s.output_length + 1 < s.request.max_tokens]
    needed = [s.pages_needed(s.planned + 1, page_size) for s in going_on]
    if sum(needed) > pool.free_count:
        return []
    chunks = []
    for sequence, pages in zip(going_on, needed, strict=True):
        new_pages = pool.take(pages)
        sequence.pages += new_pages
        sequence.ahead = 1
        chunks.append(Chunk(sequence.slot, sequence.computed + sequence.planned, 1, tuple(new_pages), sample=True))
    return chunks
