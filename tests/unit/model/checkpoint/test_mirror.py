"""A part of a checkpoint in sparse files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.checkpoint import mirror
from model.checkpoint.folder import Checkpoint
from model.checkpoint.mirror import Mirror, Span, read_span, sha256, spans_of
from model.checkpoint.weights import Tensors
from tests.checkpoints import tiny, write
from tests.mirrors import empty, fill

EXPERT = 3


@pytest.fixture(name="original")
def _original(tmp_path: Path) -> Checkpoint:
    return Checkpoint.open(write(tmp_path / "original", tiny(hidden_size=64, intermediate_size=96)))


def test_a_part_is_read_like_the_original_and_has_its_digest(original: Checkpoint, tmp_path: Path) -> None:
    part = empty(original, tmp_path / "part")
    names = part.expert_names(EXPERT)
    assert part.digest == original.digest and part.config == original.config
    fill(original, part, names, EXPERT)
    for name in names:
        ours, theirs = (Tensors(c, names, torch.float32)[name] for c in (part, original))
        assert torch.equal(ours, theirs) and ours.any()
    other = part.expert_names(EXPERT + 1)
    assert not torch.equal(*(Tensors(c, other, torch.float32)[other[0]] for c in (part, original)))


def test_only_what_is_needed_takes_room(tmp_path: Path) -> None:
    original = Checkpoint.open(write(tmp_path / "original", tiny(hidden_size=256, intermediate_size=1024)))
    part = empty(original, tmp_path / "part")
    fill(original, part, part.expert_names(EXPERT), EXPERT)
    on_disk = sum(file.stat().st_blocks * 512 for file in part.folder.iterdir())
    assert on_disk < 0.4 * sum(file.stat().st_size for file in original.folder.iterdir())


def test_another_process_goes_on_where_one_was_killed(
    original: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "CHUNK", 4096)
    part = empty(original, tmp_path / "part")
    spans = spans_of(part.tensors[name] for name in part.expert_names(EXPERT))
    first = Mirror(part.folder, "expert-3")
    every = first.missing(spans)
    assert len(every) > 6 and all(span.end - span.begin <= 4096 for span in every)
    for span in every[:4]:
        data = read_span(original.folder, span)
        first.put(span, data, sha256(data))
    record = part.folder / ".expert-3.spans"
    record.write_text(record.read_text() + '\n["model.safetensors", 12', encoding="ascii")  # it was killed as it wrote
    assert Mirror(part.folder, "expert-3").missing(spans) == every[4:]
    assert Mirror(part.folder, "expert-4").missing(spans) == every, "a record of its own"


def damage(folder: Path, span: Span) -> None:
    with (folder / span.file).open("r+b") as stream:
        stream.seek(span.begin)
        stream.write(b"\xff" * 3)


def lose(folder: Path, span: Span) -> None:
    with (folder / span.file).open("r+b") as stream:
        stream.truncate(span.begin)


@pytest.mark.parametrize("harm", [damage, lose])
def test_what_was_damaged_in_the_cache_is_brought_again(
    original: Checkpoint, tmp_path: Path, harm: Callable[[Path, Span], None]
) -> None:
    part = empty(original, tmp_path / "part")
    names = part.expert_names(EXPERT)
    found, spans = fill(original, part, names, EXPERT), spans_of(part.tensors[name] for name in names)
    assert not found.missing(spans)
    harm(part.folder, spans[-1])
    assert found.missing(spans) == [spans[-1]]


def test_what_comes_damaged_is_not_taken(original: Checkpoint, tmp_path: Path) -> None:
    part = empty(original, tmp_path / "part")
    found = Mirror(part.folder, "head")
    (span, *_) = spans_of(part.tensors[name] for name in part.head_names())
    data = read_span(original.folder, span)
    for wrong in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        with pytest.raises(ValueError, match="came damaged"):
            found.put(span, wrong, sha256(data))
    assert span in found.missing([span])


def test_two_processes_may_make_the_folder(original: Checkpoint, tmp_path: Path) -> None:
    first = empty(original, tmp_path / "part")
    fill(original, first, first.expert_names(EXPERT), EXPERT)
    again = empty(original, tmp_path / "part")
    names = again.expert_names(EXPERT)
    assert not Mirror(again.folder, "expert-3").missing(spans_of(again.tensors[name] for name in names))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original", "part"]
