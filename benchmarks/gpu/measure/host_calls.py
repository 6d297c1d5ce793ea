"""The calls that the host makes to the device while some work runs, as torch's profiler sees it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu.bench import Bench

# Beginnings of names: CUDA's may end in a version.
_LAUNCHES = ("cudaLaunch", "cuLaunch")
_COPIES = ("cudaMemcpy", "cuMemcpy")
_WAITS = ("cudaStreamSync", "cudaDeviceSync", "cudaEventSync", "cuStreamSync", "cuCtxSync", "cuEventSync")
_SPAN = "eightwinds: watched"


@dataclass(frozen=True, slots=True)
class HostCalls:
    """How often each function was called, by name, and milliseconds: of all the work, and of waiting in it."""

    counts: Counter[str]
    ms: float
    waiting_ms: float

    @property
    def launches(self) -> int:
        """Kernels that were launched."""
        return self._of(_LAUNCHES)

    @property
    def copies(self) -> int:
        """Copies that were begun."""
        return self._of(_COPIES)

    @property
    def waits(self) -> int:
        """Times that the host waited for the device."""
        return sum(count for name, count in self.counts.items() if _waits(name))

    @property
    def operators(self) -> int:
        """torch operators, those that others call included."""
        return self._of(("aten::",))

    def told(self) -> str:
        """The calls of CUDA, most frequent first."""
        return ", ".join(f"{name} {count}" for name, count in self.counts.most_common() if name.startswith("cu"))

    def _of(self, beginnings: tuple[str, ...]) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith(beginnings))


def watched(work: Callable[[], object], bench: Bench) -> HostCalls:
    """Run `work` once under the profiler, which makes it slower. The profiler's own waits are not counted."""
    activities = [ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    bench.synchronize()
    with profile(activities=activities) as profiler, record_function(_SPAN):
        work()
    on_host = [e for e in profiler.events() or () if e.device_type.name == "CPU"]
    span = next((e.time_range for e in on_host if e.name == _SPAN), None)
    if span is None:
        raise RuntimeError("the profiler saw nothing")
    inside = [e for e in on_host if span.start <= e.time_range.start <= span.end and e.name != _SPAN]
    waiting_us = sum(e.time_range.elapsed_us() for e in inside if _waits(e.name))
    return HostCalls(Counter(e.name for e in inside), span.elapsed_us() / 1e3, waiting_us / 1e3)


def _waits(name: str) -> bool:
    return name.startswith(_WAITS) or (name.startswith(_COPIES) and "Async" not in name)
