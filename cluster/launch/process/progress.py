"""Tells the operator how a start is going, on stderr: one line when something changed, at most one a second."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from model.batch import LoadProgress


class ProgressLines:
    """Prints `loading weights: 5/9 actors ready, 12.3/93.4 GB`."""

    def __init__(self, stream: TextIO | None = None, interval: float = 1.0) -> None:
        self._stream, self._interval = stream or sys.stderr, interval
        self._last, self._printed = "", float("-inf")

    def report(self, phase: str, progress: Mapping[str, LoadProgress]) -> None:
        line = progress_line(phase, progress)
        now = time.monotonic()
        complete = bool(progress) and all(p.ready for p in progress.values())
        if line != self._last and (now - self._printed >= self._interval or complete):
            print(line, file=self._stream, flush=True)
            self._last, self._printed = line, now


def progress_line(phase: str, progress: Mapping[str, LoadProgress]) -> str:
    if not progress:
        return phase
    ready = sum(p.ready for p in progress.values())
    loaded = sum(p.loaded_bytes for p in progress.values())
    total = sum(p.total_bytes for p in progress.values())
    unit, name = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    return f"{phase}: {ready}/{len(progress)} actors ready, {loaded / unit:.1f}/{total / unit:.1f} {name}"
