"""Errors after which a process can no longer compute on its device."""

import torch


def lost_device(error: BaseException) -> bool:
    """Whether a CUDA context is unusable: after an illegal address or an ECC error every later call fails, too, and
    only a new process helps. Running out of memory is not such an error.
    """
    return isinstance(error, torch.AcceleratorError)
