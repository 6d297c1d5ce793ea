"""The least time that work can take on this card, and a table's row that holds a measurement against it."""

import math
from dataclasses import dataclass

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from benchmarks.gpu.measure.timing import copy_bandwidth, median_ms


@dataclass(frozen=True, slots=True)
class Card:
    """Its best rates: bytes and floating-point operations a microsecond. NaN is not known."""

    bytes_a_us: float
    flops_a_us: float

    @classmethod
    def measured(cls, square: int, dtype: torch.dtype, bench: Bench) -> "Card":
        """By a large copy within the device, and by a product of two matrices of this side."""
        moved = computed = math.nan
        try:
            moved = 1e3 * copy_bandwidth(bench)
            bench.findings.fact("device-to-device copy, bytes read and written, GB/s", round(moved / 1e3, 1))
            computed = _product_rate(square, dtype, bench)
            bench.findings.fact(f"{square} x {square} matrix product in {dtype}, TFLOP/s", round(computed / 1e6, 3))
        except MISHAPS as mishap:
            bench.findings.note(f"what the card does at best is not known: {reason(mishap)}")
        bench.free()
        return cls(moved, computed)

    def floor(self, nbytes: float, flops: float) -> tuple[float, str]:
        """Microseconds, and what they go to."""
        moving, computing = nbytes / self.bytes_a_us, flops / self.flops_a_us
        return (moving, "bytes") if moving >= computing else (computing, "arithmetic")


def _product_rate(square: int, dtype: torch.dtype, bench: Bench) -> float:
    a, b = (torch.randn(square, square, dtype=dtype, device=bench.device) for _ in range(2))
    return 2 * square**3 / (1e3 * median_ms(lambda: a @ b, bench, repeat=10))


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a step does, and the bytes and operations that it cannot do without."""

    name: str
    rows: int
    nbytes: float
    flops: float

    def row(self, card: Card, us: float, host_us: float | None) -> dict[str, object]:
        """`us` against the floor. `host_us` is what it takes to tell the device, None where the host is the device: it
        binds where it takes about as long as all of it.
        """
        floor, binds = card.floor(self.nbytes, self.flops)
        cells: dict[str, object] = {"part": self.name, "rows": self.rows, "us": round(us, 1)}
        cells |= {"floor us": round(floor, 1), "ratio": round(us / floor, 2)}
        if host_us is not None:
            cells["host us"] = round(host_us, 1)
            binds = "host" if host_us > 0.9 * us else binds
        return cells | {"binds": binds}
