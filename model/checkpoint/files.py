"""Safetensors files of a folder: which there are, and what their headers say. Nothing but headers is taken for true."""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import read_json, refuse_pointer

FLOATS = {"F32": 4, "BF16": 2, "F16": 2}  # bytes of a number
INTEGERS = {"I32": 4}
_NUMBER_BYTES = FLOATS | INTEGERS
_CONVERT = (
    "fetch the HF layout (hf download mistralai/Mixtral-8x7B-v0.1 --exclude 'consolidated*'), or write these files as "
    'safetensors, in that folder: python -c "import glob, torch; from safetensors.torch import save_file; '
    "[save_file({k: v.clone() for k, v in torch.load(f, map_location='cpu', mmap=True).items()}, "
    "f.rsplit('.', 1)[0] + '.safetensors') for f in glob.glob('consolidated*.pt*')]\""
)
_OTHER_FORMATS = (  # looked for in this order: files, their format, and how to get a checkpoint that can be read
    ("consolidated*", "Mistral's own layout in PyTorch's pickle format", _CONVERT),
    ("pytorch_model*.bin", "PyTorch's pickle format", "save it again by save_pretrained(..., safe_serialization=True)"),
    ("*.gguf", "llama.cpp's format", "fetch the checkpoint it was made from"),
)
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_CONSOLIDATED = "consolidated*.safetensors"  # Mistral's own
_BLOCK = 4096  # bytes of each tensor that go into the digest


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a file, which begins at byte `begin` of it; `dtype` is safetensors' name of it."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    begin: int


def weight_files(folder: Path) -> list[Path]:
    """HF's go first. ValueError if there are none that can be read, or one that the index names is missing."""
    index, single = folder / INDEX, folder / SINGLE
    if single.exists():  # first, as HF looks
        return [single]
    if not index.exists():
        if consolidated := sorted(folder.glob(_CONSOLIDATED)):
            return consolidated
        for pattern, what, advice in _OTHER_FORMATS:
            if other := next(iter(sorted(folder.glob(pattern))), None):
                raise ValueError(f"{folder} has {other.name}, which is {what}; only safetensors are read: {advice}")
        raise ValueError(f"{folder} has neither {SINGLE} nor {INDEX}: the weights are missing")
    refuse_pointer(index)
    try:
        names = sorted({str(Path(shard)) for shard in read_json(index)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index} is not a safetensors index (no weight_map): copy it again") from None
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{index.name} names {name}, which is not in {folder}: copy the missing shard")
    return [folder / name for name in names]


def where_listed(folder: Path) -> str:
    """The file that would have to name a missing tensor, or the files that would have to hold it."""
    if (folder / SINGLE).exists():
        return SINGLE
    return INDEX if (folder / INDEX).exists() else _CONSOLIDATED


def read_headers(file: Path, found: dict[str, StoredTensor]) -> Iterator[bytes]:
    """Enter a file's tensors into `found`. Yields what goes into the digest: the header, and a block from the middle of
    every tensor (of every matrix, where a tensor has several), enough to tell two trainings of one architecture apart.
    """
    header, data = _header(file)
    yield json.dumps(header, sort_keys=True).encode()
    for entry in _entries(file, header, data, file.stat().st_size):
        if entry.name in found:
            raise ValueError(f"{file.name}: tensor {entry.name} is also in {found[entry.name].file.name}")
        found[entry.name] = entry
    with file.open("rb") as stream:
        for begin, end in _middles(header, data):
            stream.seek(begin)
            yield stream.read(end - begin)


def digest_blocks(file: Path) -> Iterator[tuple[int, bytes]]:
    """All of a file that `read_headers` looks at, and where it is; the entries are not checked."""
    header, data = _header(file)
    with file.open("rb") as stream:
        yield 0, stream.read(data)
        for begin, end in _middles(header, data):
            stream.seek(begin)
            yield begin, stream.read(end - begin)


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """Its entries by tensor, and where the tensors begin."""
    refuse_pointer(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{file.name} is truncated: its header does not fit in {size} bytes; copy it again")
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} is not a safetensors file: its header is no JSON object")
    header.pop("__metadata__", None)
    return header, 8 + length


def _middles(header: Mapping[str, Any], data: int) -> Iterator[tuple[int, int]]:
    """Where the digest's blocks begin and end."""
    for name in sorted(header):
        start, end = header[name]["data_offsets"]
        shape = header[name]["shape"]
        nbytes = (end - start) // (shape[0] if len(shape) == 3 and shape[0] else 1)
        for matrix in range(start, end, nbytes or 1):
            begin = data + matrix + max(0, (nbytes - _BLOCK) // 2)
            yield begin, begin + min(_BLOCK, nbytes)


def _entries(file: Path, header: Mapping[str, Any], start: int, size: int) -> Iterator[StoredTensor]:
    described = start
    for name, info in header.items():
        try:
            dtype, shape, (begin, end) = info["dtype"], tuple(info["shape"]), info["data_offsets"]
            sound = all(isinstance(number, int) and number >= 0 for number in (*shape, begin, end))
            width = _NUMBER_BYTES.get(dtype)  # None: refused by name if the tensor is one of ours
            sound &= end >= begin and (width is None or end - begin == math.prod(shape) * width)
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ValueError(f"{file.name}: the header entry of {name} is damaged; copy the file again") from None
        if start + end > size:
            raise ValueError(
                f"{file.name} is truncated: tensor {name} ends at byte {start + end}, the file at {size}; copy it again"
            )
        described += end - begin
        yield StoredTensor(name, file, dtype, shape, end - begin, start + begin)
    if described != size:
        raise ValueError(f"{file.name}: its header describes {described} bytes, it has {size}; copy it again")
