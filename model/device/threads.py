"""The threads of a process that computes on a CPU."""

import torch


def compute_with(threads: int) -> None:
    """Of this process, whichever of its threads asks for a computation."""
    torch.set_num_threads(threads)
