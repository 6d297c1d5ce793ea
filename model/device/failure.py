"""Errors after which a process's device computes no more."""

import torch


def lost_device(error: BaseException) -> bool:
    """Whether a CUDA context is beyond use: after an illegal address or an ECC error every later call fails, too, and
    only a new process helps. To be out of memory is no such error.
    """
    kind = getattr(torch, "AcceleratorError", None)
    return kind is not None and isinstance(error, kind)
