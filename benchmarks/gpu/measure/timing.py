"""How long work takes on the device: medians of many repetitions, and the bandwidth that they are compared with."""

import time
from collections.abc import Callable
from statistics import median

import torch

from benchmarks.gpu.bench import Bench

_COPIED_BYTES = {True: 1 << 30, False: 1 << 22}  # far beyond any cache on a GPU; on a CPU it only has to run


def median_ms(work: Callable[[], object], bench: Bench, repeat: int = 20, warmup: int = 3) -> float:
    """Median milliseconds of `work`.

    On a GPU between two events on its stream, one pair per repetition: what the host does meanwhile counts only where
    the device has to wait for it. On a CPU by the clock.
    """
    for _ in range(warmup):
        work()
    bench.synchronize()
    return median(_event_ms(work, bench, repeat) if bench.device.type == "cuda" else _clock_ms(work, repeat))


def copy_bandwidth(bench: Bench) -> float:
    """GB/s of a large copy within the device's memory, bytes read and bytes written together: the ceiling for all
    that is bound by memory.
    """
    count = _COPIED_BYTES[bench.device.type == "cuda"]
    source = torch.empty(count, dtype=torch.uint8, device=bench.device).random_()
    target = torch.empty_like(source)
    return 2 * count / median_ms(lambda: target.copy_(source), bench) / 1e6


def _event_ms(work: Callable[[], object], bench: Bench, repeat: int) -> list[float]:
    with torch.cuda.device(bench.device):
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeat)]
        for begin, end in pairs:
            begin.record()
            work()
            end.record()
        bench.synchronize()
    return [begin.elapsed_time(end) for begin, end in pairs]


def _clock_ms(work: Callable[[], object], repeat: int) -> list[float]:
    readings = []
    for _ in range(repeat):
        begin = time.perf_counter()
        work()
        readings.append(1e3 * (time.perf_counter() - begin))
    return readings
