"""Rows of hidden states as raw bytes and back, without a copy where torch allows it.

Ray sends `bytes` in less than half the time of a torch tensor, and numpy has no bfloat16.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}


def allow_read_only_buffers() -> None:
    """Keep torch from warning of read-only buffers in this process: nothing writes to the tensors made of them."""
    warnings.filterwarnings("ignore", message="The given buffer is not writable")


def tensor_bytes(x_RD: torch.Tensor) -> memoryview:
    """The memory of a tensor on the host, row-major (model/device/host_link.py brings tensors of a device there)."""
    return memoryview(x_RD.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]  # numpy arrays are buffers


def tensor_from(
    buffer: bytes | memoryview | NDArray[np.uint8], offset: int, rows: int, columns: int, code: int
) -> torch.Tensor:
    """[rows, columns] over `buffer` from `offset`, not copied; ValueError unless the buffer ends exactly there."""
    if code not in _DTYPES:
        raise ValueError(f"dtype code {code} is unknown")
    dtype = _DTYPES[code]
    if len(buffer) - offset != rows * columns * dtype.itemsize:
        raise ValueError(f"{len(buffer) - offset} bytes cannot be {rows} x {columns} of {dtype}")
    if rows * columns == 0:
        return torch.empty((rows, columns), dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype, offset=offset).view(rows, columns)
