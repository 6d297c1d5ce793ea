"""Reads tensors of a verified checkpoint by name, so that a process touches only its own."""

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from safetensors import safe_open

from model.checkpoint.folder import Checkpoint

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a configuration's name; ValueError lists the names."""
    if name not in TORCH_DTYPES:
        raise ValueError(f"dtype {name!r} is none of {', '.join(TORCH_DTYPES)}")
    return TORCH_DTYPES[name]


class Tensors(Mapping[str, torch.Tensor]):
    """These tensors of a checkpoint, each read when it is asked for and not kept: a matrix may be packed and its stored
    form let go before the next one is read. `progress` is told the stored bytes of each.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: Iterable[str],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        progress: Callable[[int], None] = lambda nbytes: None,
    ) -> None:
        self._stored = {name: checkpoint.tensors[name] for name in names}
        self._dtype, self._device, self._progress = dtype, device, progress

    def __getitem__(self, name: str) -> torch.Tensor:
        """Copied out of the file's mapping, which is closed at once, so that none of its pages stays resident."""
        stored = self._stored[name]
        _give_back()
        with safe_open(stored.file, framework="pt") as reader:
            tensor: torch.Tensor = reader.get_tensor(name).to(device=self._device, dtype=self._dtype, copy=True)
        self._progress(stored.nbytes)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _give_back() -> None:
    """Return freed blocks to the system: C's library would keep those of tensors that were packed and let go of."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
