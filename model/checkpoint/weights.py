"""Reads tensors of a verified checkpoint by name, so that a process touches only its own."""

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from safetensors import safe_open

from model.checkpoint.entries import TensorEntry
from model.checkpoint.folder import Checkpoint
from model.checkpoint.layouts import Place
from model.checkpoint.packing import Packing
from model.checkpoint.unpack import unpacked
from model.grouped import Grouped

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a configuration's name; ValueError lists the names."""
    if name not in TORCH_DTYPES:
        raise ValueError(f"dtype {name!r} is none of {', '.join(TORCH_DTYPES)}")
    return TORCH_DTYPES[name]


class Tensors(Mapping[str, torch.Tensor]):
    """These tensors of a checkpoint, each read when it is asked for and not kept: a matrix may be packed and its stored
    form let go before the next one is read. `progress` is told the stored bytes of each. A matrix that is stored in 4
    bits is unpacked.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: Iterable[str],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        progress: Callable[[int], None] = lambda nbytes: None,
    ) -> None:
        self._entries = {name: checkpoint.tensors[name] for name in names}
        self._dtype, self._device, self._progress = dtype, device, progress

    def __getitem__(self, name: str) -> torch.Tensor:
        entry = self._entries[name]
        if entry.packing:
            return self._unpacked(entry, entry.packing).dense(self._dtype)
        (tensor,) = self._read(entry, self._dtype).values()
        return tensor

    def grouped(self, name: str) -> Grouped:
        """A matrix as integers of 4 bits: as it is stored, or rounded to some."""
        entry = self._entries[name]
        return self._unpacked(entry, entry.packing) if entry.packing else Grouped.rounded(self[name])

    def _unpacked(self, entry: TensorEntry, packing: Packing) -> Grouped:
        try:
            return unpacked(packing, self._read(entry))
        except ValueError as error:
            raise ValueError(f"{entry.file.name}: {entry.name} cannot be unpacked: {error}") from None

    def _read(self, entry: TensorEntry, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
        """Copied out of the files' mappings, which are closed at once, so that none of their pages stays resident."""
        _give_back()
        parts = {}
        for part, stored in entry.stored.items():
            with safe_open(stored.file, framework="pt") as reader:
                view = reader.get_slice(stored.name)
                tensor = _placed(view, entry.place) if part == "weight" else view[:]
                layout = torch.contiguous_format
                parts[part] = tensor.to(device=self._device, dtype=dtype, copy=True, memory_format=layout)
        self._progress(entry.nbytes)
        return parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _placed(stored: Any, place: Place) -> torch.Tensor:
    """The model's tensor: only its part is read of the file."""
    tensor: torch.Tensor = stored[place.index]
    if place.transposed:
        tensor = tensor.t()
    if place.paired_heads:
        tensor = tensor.unflatten(0, (place.paired_heads, -1, 2)).transpose(1, 2).flatten(0, 2)
    return tensor


def _give_back() -> None:
    """Return freed blocks to the system: C's library would keep those of tensors that were packed and let go of."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
