"""Bugs of ours that Ray reports as it reports a process that ended: as an exception of one family."""

import logging
from typing import Any

import ray

log = logging.getLogger("eightwinds.actors")

_MOST = 100  # kinds that are remembered


class OwnFaults:
    """Says each kind of them once, with its traceback; what Ray says of processes and nodes is no fault of ours."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def failed(self, ref: Any, doing: str) -> bool:
        """Whether a call that has ended raised; see `note`."""
        try:
            ray.get(ref)
        except ray.exceptions.RayError as error:
            self.note(doing, error)
            return True
        return False

    def note(self, doing: str, error: Exception) -> None:
        """`error` is what a call of an actor raised while we were `doing` something."""
        if not isinstance(error, ray.exceptions.RayTaskError):
            return
        kind = f"{doing}: {type(error.cause).__name__}" if error.cause is not None else doing
        if kind not in self._said and len(self._said) < _MOST:
            self._said.add(kind)
            log.error("a fault in an actor, while %s (said once): %s", doing, error)
