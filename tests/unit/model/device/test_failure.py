import torch

from model.device.failure import lost_device


def test_a_broken_context_is_lost_and_a_full_memory_is_not() -> None:
    assert lost_device(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    assert not lost_device(torch.OutOfMemoryError("CUDA out of memory"))
    assert not lost_device(RuntimeError("shapes differ"))
