"""How fast this machine computes an expert's calls, told before any expert is here."""

import time
from collections.abc import Callable

import torch

from model.config import MixtralConfig
from model.experts.loading import expert_of
from model.matrices.forms import MATRICES

_ROWS = 8  # of a call: about what an expert gets of a batch of 32 tokens
_NUMBER = 0.01
_WINDOWS = 4


def calls_per_second(config: MixtralConfig, form: str, dtype: torch.dtype, threads: int, seconds: float = 1.2) -> float:
    """Calls of one layer's expert with its matrices in that form, one after the other, on so many threads: the most of
    some windows, because another process may have the cores meanwhile. In a window calls are counted rather than timed
    one by one, because a limit on CPU time stops a process for a tenth of a second now and then. Takes the memory of
    the layer twice.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expert = expert_of(0, 1, _Constant(config, dtype), MATRICES[form])
        x_RD = torch.full((_ROWS, config.hidden_size), _NUMBER, dtype=dtype)
        expert.forward(0, x_RD)  # the first one may take memory
        return max(_rate(lambda: expert.forward(0, x_RD), seconds / _WINDOWS) for _ in range(_WINDOWS))
    finally:
        torch.set_num_threads(before)


def _rate(call: Callable[[], object], seconds: float) -> float:
    begin, calls = time.perf_counter(), 0
    while (took := time.perf_counter() - begin) < seconds or not calls:
        call()
        calls += 1
    return calls / took


class _Constant(dict[str, torch.Tensor]):
    """Matrices of one number, which take no time to make."""

    def __init__(self, config: MixtralConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self._shape, self._dtype = (config.intermediate_size, config.hidden_size), dtype

    def __missing__(self, name: str) -> torch.Tensor:
        shape = self._shape[::-1] if ".w2." in name else self._shape
        return torch.full(shape, _NUMBER, dtype=self._dtype)
