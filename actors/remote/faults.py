"""Bugs of ours that Ray reports as it reports a process that ended: as an exception of one family."""

import logging
from typing import Any

import ray

log = logging.getLogger("eightwinds.actors")


class OwnFaults:
    """Says each kind of them once, with its traceback; what Ray says of processes and nodes is no fault of ours."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def answer(self, ref: Any, doing: str, timeout: float | None = None) -> Any:
        """The answer of a call within `timeout` seconds; None if it fails, which is noted."""
        try:
            return ray.get(ref, timeout=timeout)
        except ray.exceptions.RayError as error:
            self.note(doing, error)
            return None

    def note(self, doing: str, error: Exception) -> None:
        """`error` is what a call of an actor raised while we were `doing` something."""
        if not isinstance(error, ray.exceptions.RayTaskError):
            return
        kind = f"{doing}: {type(error.cause).__name__}" if error.cause is not None else doing
        if kind not in self._said:
            self._said.add(kind)
            log.error("a fault in an actor, while %s (said once): %s", doing, error)
