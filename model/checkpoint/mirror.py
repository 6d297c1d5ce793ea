"""A part of a checkpoint in a folder of its own: its files are sparse, with the headers and as much of the tensors as
has been put there. `Checkpoint.open` reads such a folder like the original, and finds the same digest.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint.entries import TensorEntry
from model.checkpoint.files import digest_blocks, weight_files

_MOST_BYTES = 64 << 20  # of a file beside the weights: a tokenizer's may have 17 MiB
_NOT_NEEDED = (".bin", ".pt", ".pth", ".gguf", ".safetensors")
CHUNK = 8 << 20  # bytes that are asked for at once


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of one of the checkpoint's files, by its name."""

    file: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Skeleton:
    """All but the tensors: small files whole, and of each weight file its size, header and the blocks of the digest."""

    small: dict[str, bytes]
    sizes: dict[str, int]
    blocks: list[tuple[str, int, bytes]]  # file, where, what

    @classmethod
    def of(cls, folder: Path) -> "Skeleton":
        """ValueError if the folder has no weights that can be read."""
        files = weight_files(folder)
        others = [f for f in folder.iterdir() if f.is_file() and f not in files and f.suffix not in _NOT_NEEDED]
        small = {f.name: f.read_bytes() for f in others if f.stat().st_size <= _MOST_BYTES}
        blocks = [(file.name, begin, data) for file in files for begin, data in digest_blocks(file)]
        return cls(small, {file.name: file.stat().st_size for file in files}, blocks)

    def write(self, folder: Path) -> None:
        """Make a folder of it. One that is there gets its headers and small files anew, and keeps its tensors."""
        making = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        self._fill(making)
        try:
            making.rename(folder)
        except OSError:  # it is there
            shutil.rmtree(making)
            self._fill(folder)

    def _fill(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.small.items():
            (folder / name).write_bytes(content)
        for name, size in self.sizes.items():
            with (folder / name).open("ab") as stream:
                stream.truncate(size)
        for name, begin, data in self.blocks:
            with (folder / name).open("r+b") as stream:
                stream.seek(begin)
                stream.write(data)


def spans_of(entries: Iterable[TensorEntry]) -> list[Span]:
    """The parts of the files that reading these tensors takes, in order."""
    found = set[Span]()
    for entry in entries:
        for part in entry.stored.values():
            first, last = 0, part.shape[0] if part.shape else 1
            row = part.nbytes // last if last else 0
            if entry.place.index:  # one of several experts' in a tensor
                own = entry.place.index[0]
                first, last = (own, own + 1) if isinstance(own, int) else (own.start, own.stop)
            found.add(Span(part.file.name, part.begin + first * row, part.begin + last * row))
    return sorted(found, key=lambda span: (span.file, span.begin))


class Mirror:
    """The record of what one reader has put into a mirror's folder. Two readers never share a record, because each
    expert has tensors of its own; the lock is for two processes with the same expert.
    """

    def __init__(self, folder: Path, reader: str) -> None:
        self._folder, self._record = folder, folder / f".{reader}.spans"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from filling in this reader's part."""
        with self._record.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def missing(self, spans: Iterable[Span]) -> list[Span]:
        """Chunks of these spans that are not there, or not as they were when they were put there."""
        there = {span for span, digest in self._recorded() if sha256(self.read(span)) == digest}
        return [chunk for span in spans for chunk in _chunks(span) if chunk not in there]

    def reserve(self, spans: Iterable[Span]) -> None:
        """Take room on the disk for these; OSError if there is not enough."""
        for span in spans:
            with (self._folder / span.file).open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), span.begin, span.end - span.begin)

    def put(self, span: Span, data: bytes, digest: str) -> None:
        """ValueError if the data do not have this digest, or are not as many."""
        if len(data) != span.end - span.begin or sha256(data) != digest:
            raise ValueError(f"{span.file}: bytes {span.begin} to {span.end} came damaged")
        with (self._folder / span.file).open("r+b") as stream:
            stream.seek(span.begin)
            stream.write(data)
        with self._record.open("a", encoding="ascii") as record:
            record.write("\n" + json.dumps([span.file, span.begin, span.end, digest]))  # behind half a line of another

    def read(self, span: Span) -> bytes:
        """The bytes that are there now."""
        return read_span(self._folder, span)

    def _recorded(self) -> Iterator[tuple[Span, str]]:
        try:
            lines = self._record.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):  # the last line of a process that was killed
                file, begin, end, digest = json.loads(line)
                yield Span(file, begin, end), digest


def read_span(folder: Path, span: Span) -> bytes:
    """Bytes of a file; fewer where it ends before."""
    with (folder / span.file).open("rb") as stream:
        stream.seek(span.begin)
        return stream.read(span.end - span.begin)


def sha256(data: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _chunks(span: Span) -> Iterator[Span]:
    for begin in range(span.begin, span.end, CHUNK):
        yield Span(span.file, begin, min(begin + CHUNK, span.end))
