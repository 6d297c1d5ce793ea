"""Loads an actor's weights in a thread, so that the actor answers questions about its progress meanwhile."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from actors.specs import ActorSpec
from model.batch import LoadProgress
from model.checkpoint.folder import Checkpoint


def open_checkpoint(spec: ActorSpec) -> Checkpoint:
    """ValueError if it is damaged or not the one that the server began with: a restarted actor must not mix weights."""
    checkpoint = Checkpoint.open(Path(spec.folder))
    if spec.digest and checkpoint.digest != spec.digest:
        raise ValueError(f"{spec.folder} has changed since the server started: restart the server")
    return checkpoint


class Weights:
    """A checkpoint that is here, or that is `bring`ed here tensor by tensor: a subclass's matter."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def to_bring(self, names: Sequence[str]) -> int:
        """Bytes that `bring` reports of these tensors, however many are here already."""
        return 0

    def bring(self, names: Sequence[str], progress: Callable[[int], None]) -> None:
        """Return when these tensors can be read; `progress` is told bytes as they come."""


class Loading:
    """One attempt to load. `work` is given a function to call with the bytes of each tensor as it arrives."""

    def __init__(self, total_bytes: int, work: Callable[[Callable[[int], None]], None]) -> None:
        self._total, self._loaded, self._error = total_bytes, 0, ""
        self._done = threading.Event()
        self._work = work
        threading.Thread(target=self._run, name="load-weights", daemon=True).start()

    def _run(self) -> None:
        try:
            self._work(self._add)
        except Exception as error:  # whatever it was, the operator must see it rather than wait for ever
            self._error = f"{type(error).__name__}: {error}"
        self._done.set()

    def _add(self, nbytes: int) -> None:
        self._loaded += nbytes

    def progress(self) -> LoadProgress:
        done = self._done.is_set()
        return LoadProgress(self._loaded, self._total, ready=done and not self._error, error=self._error)

    def wait(self, timeout: float | None = None) -> LoadProgress:
        """Progress once loading has ended, or after `timeout` seconds."""
        self._done.wait(timeout)
        return self.progress()
