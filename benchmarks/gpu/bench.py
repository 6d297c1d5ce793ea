"""The means of a step: a device, sizes, a pen, a folder and a time to be done by."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.findings import Findings


@dataclass(frozen=True, slots=True)
class Bench:
    """`full` says whether sizes are those of Mixtral 8x7B; a rehearsal on the CPU takes tiny ones. `out` is for files
    that shall be kept, `until` a moment on the monotonic clock, `flash_site` the folder that flash-attn is built for.
    """

    device: torch.device
    full: bool
    out: Path
    findings: Findings
    until: float = math.inf
    flash_site: Path | None = None

    def left(self) -> float:
        """Seconds that the step still has."""
        return self.until - time.monotonic()

    def synchronize(self) -> None:
        """Wait until the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Give cached memory of the device back."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
