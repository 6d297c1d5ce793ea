"""Parts of checkpoints, filled from the original as actors fill them over Ray."""

from collections.abc import Sequence
from pathlib import Path

from model.checkpoint.folder import Checkpoint
from model.checkpoint.mirror import Mirror, Skeleton, read_span, sha256, spans_of


def empty(original: Checkpoint, folder: Path) -> Checkpoint:
    """Without any tensor."""
    Skeleton.of(original.folder).write(folder)
    return Checkpoint.open(folder)


def fill(original: Checkpoint, part: Checkpoint, names: Sequence[str], expert: int) -> Mirror:
    """These tensors, which are the expert's."""
    found = Mirror(part.folder, f"expert-{expert}")
    for span in found.missing(spans_of(part.tensors[name] for name in names)):
        data = read_span(original.folder, span)
        found.put(span, data, sha256(data))
    return found
