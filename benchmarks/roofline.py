"""How near an expert comes to what its core can do: bytes read and operations, against ceilings of the same run.

    python -m benchmarks.roofline [--rounds 5]

One thread computes one expert of `mid` (1024 x 3584, SwiGLU), a layer after the other, so that weights come from memory
and not from a cache. The ceilings are the fastest read of a large block of memory, and the fastest large product of the
same kind. The roofline of so many rows is the larger of both times (Williams et al. 2009).
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from actors.environment import use_large_pages
from benchmarks.load import median
from benchmarks.report import publish
from model.experts.loading import expert_of
from model.matrices.forms import MATRICES

_D, _I, _LAYERS = 1024, 3584, 8
_ROWS = (1, 8, 64)
_BLOCK = 512 << 20  # bytes: more than any cache
_SQUARE = 2048


def _fastest(work: Callable[[], object], times: int = 5) -> float:
    """Seconds."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


class _Tensors(Mapping[str, torch.Tensor]):
    """Random matrices of one expert, made when they are asked for."""

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.randn((_D, _I) if ".w2." in name else (_I, _D)).bfloat16() * 0.05

    def __iter__(self):  # type: ignore[no-untyped-def]  # nobody lists them
        return iter(())

    def __len__(self) -> int:
        return 0


@torch.inference_mode()
def measure(quantization: str, rounds: int) -> list[list[str]]:
    """Rows of the table."""
    make = MATRICES[quantization]
    expert = expert_of(0, _LAYERS, _Tensors(), make)
    square = expert_of(0, 1, _Square(), make)
    block = torch.ones(_BLOCK // 4)
    rows: dict[int, list[tuple[float, float]]] = {count: [] for count in _ROWS}
    ceilings = []
    for _ in range(rounds):
        bandwidth = _BLOCK / _fastest(block.sum)
        x = torch.randn(_SQUARE, _SQUARE).bfloat16()
        speed = 2 * _SQUARE**3 / _fastest(lambda x=x: square.w2[0](x))  # type: ignore[misc]  # bound now
        ceilings.append((bandwidth, speed))
        for count, found in rows.items():
            x_RD = torch.randn(count, _D).bfloat16()
            took = _fastest(lambda x=x_RD: [expert.forward(layer, x) for layer in range(_LAYERS)]) / _LAYERS  # type: ignore[misc]
            read, computed = expert.nbytes() / _LAYERS / bandwidth, 2 * count * 3 * _D * _I / speed
            found.append((took, max(read, computed) / took))
    gb, tera = median(b for b, _ in ceilings) / 1e9, median(s for _, s in ceilings) / 1e12
    table = []
    for count, found in rows.items():
        took, share = 1e3 * median(t for t, _ in found), 100 * median(s for _, s in found)
        ceiling = (f"{gb:.0f} GB/s", f"{tera:.2f} T/s")
        table.append([quantization, str(count), f"{took:.2f}", f"{share:.0f} %", *ceiling])
    return table


class _Square(_Tensors):
    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.randn(_SQUARE, _SQUARE).bfloat16()


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    use_large_pages()
    torch.set_num_threads(1)
    kinds: Sequence[str] = ("none", "int8", "int4")
    rows = [row for kind in kinds for row in measure(kind, arguments.rounds)]
    header = ("experts.quantization", "rows", "ms a layer", "of the roofline", "read", "operations")
    publish("roofline", "One expert of mid on one thread, against what the core can do", header, rows)


if __name__ == "__main__":
    main()
