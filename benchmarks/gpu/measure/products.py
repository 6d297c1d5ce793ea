"""Mixtral's matrix products, made with random numbers: at which row counts a row gets the same bits, and what a fixed
tile of rows costs.

R: rows, D: width of a row, E: width of a product.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import torch
import torch.nn.functional as F

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.row_counts import TILE, Rows, tile_seam
from benchmarks.gpu.measure.timing import median_ms
from model.config import MixtralConfig
from model.linear import CUDA_LIBRARY, CUDA_REDUCED, CUDA_SWITCHES, linear

TIMED_ROWS = (1, 8, 32, TILE, 256, 1024)
_COPIED_BYTES = 256 << 20  # weights are timed in turn over copies of so many bytes, more than a cache holds

# The library, whether it may add partial sums in the operands' dtype, and whether it may split a sum (split-K) at all.
# First as it is served (`model.linear.keep_one_order`), then torch's default.
SETTINGS: dict[str, tuple[str, bool | tuple[bool, bool]]] = {
    "not, nor split-K, cuBLASLt": (CUDA_LIBRARY, CUDA_REDUCED),
    "allowed": ("cublas", True),
    "not": ("cublas", False),
    "allowed, cuBLASLt": ("cublaslt", True),
}


@contextmanager
def reduced_precision(setting: str, device: torch.device) -> Iterator[None]:
    """torch's switches for a while; they exist for CUDA only."""
    if device.type != "cuda":
        yield
        return
    matmul, library = torch.backends.cuda.matmul, torch.backends.cuda.preferred_blas_library()
    before = {switch: getattr(matmul, switch) for switch in CUDA_SWITCHES}
    try:
        torch.backends.cuda.preferred_blas_library(SETTINGS[setting][0])
        for switch in CUDA_SWITCHES:
            setattr(matmul, switch, SETTINGS[setting][1])
        yield
    finally:
        torch.backends.cuda.preferred_blas_library(library)
        for switch, value in before.items():
            setattr(matmul, switch, value)


def shapes(c: MixtralConfig) -> dict[str, tuple[int, int]]:
    """[E, D] of every matrix that a token meets."""
    heads, hidden = c.num_attention_heads * c.head_dim, c.hidden_size
    return {
        "qkv": (heads + 2 * c.num_key_value_heads * c.head_dim, hidden),
        "out": (hidden, heads),
        "gate": (c.num_local_experts, hidden),
        "w13": (2 * c.intermediate_size, hidden),
        "w2": (hidden, c.intermediate_size),
        "lm_head": (c.vocab_size, hidden),
    }


def random_rows(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Normal numbers, the same ones for the same shape."""
    source = torch.Generator(device).manual_seed(100_003 * rows + width)
    return torch.randn((rows, width), dtype=dtype, device=device, generator=source)


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix, and rows to multiply it with."""

    x_RD: torch.Tensor
    weight_ED: torch.Tensor

    @classmethod
    def build(cls, shape: tuple[int, int], rows: int, dtype: torch.dtype, device: torch.device) -> "Product":
        """`shape` is the matrix's, [E, D]."""
        weight_ED = random_rows(*shape, dtype, device).mul_(0.02)
        return cls(random_rows(rows, shape[1], dtype, device), weight_ED)

    def plain(self, x_RD: torch.Tensor) -> torch.Tensor:
        """As torch makes it."""
        return F.linear(x_RD, self.weight_ED)

    def served(self, x_RD: torch.Tensor) -> torch.Tensor:
        """As the model makes it."""
        return linear(x_RD, self.weight_ED)

    def tile_seam(self) -> str:
        """See `row_counts.tile_seam`."""
        return tile_seam(self.plain, self.x_RD[:TILE])

    def tile_ms(self, bench: Bench) -> dict[int, tuple[float, float]]:
        """By rows: median milliseconds of a plain product, and of one in tiles, the last one padded."""
        copies = max(1, min(8, _COPIED_BYTES // self.weight_ED.nbytes)) if bench.full else 1
        weights = cycle([self.weight_ED, *(self.weight_ED.clone() for _ in range(copies - 1))])
        repeat, warmup = (24, copies) if bench.full else (3, 1)

        def time_of(make: Rows, rows: int) -> float:
            return median_ms(lambda: make(self.x_RD[:rows]), bench, repeat, warmup)

        def plain(x_RD: torch.Tensor) -> torch.Tensor:
            return F.linear(x_RD, next(weights))

        def tiled(x_RD: torch.Tensor) -> torch.Tensor:
            weight_ED = next(weights)
            products = [F.linear(_full(tile_RD), weight_ED) for tile_RD in x_RD.split(TILE)]
            return (products[0] if len(products) == 1 else torch.cat(products))[: len(x_RD)]

        rows = [count for count in TIMED_ROWS if count <= len(self.x_RD)]
        return {count: (time_of(plain, count), time_of(tiled, count)) for count in rows}


def _full(x_RD: torch.Tensor) -> torch.Tensor:
    if len(x_RD) == TILE:
        return x_RD
    tile_RD = x_RD.new_zeros((TILE, x_RD.shape[1]))
    tile_RD[: len(x_RD)] = x_RD
    return tile_RD
