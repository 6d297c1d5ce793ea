"""Warnings of what happens again and again: once, then once a minute with how often (cluster/policy/repeats.py)."""

import logging

from cluster.policy.repeats import Repeats


class SaidOnce:
    """Warnings in one log. Two are the same if text and arguments are, apart from the `detail` that comes last."""

    def __init__(self, log: logging.Logger) -> None:
        self._log, self._repeats = log, Repeats()

    def warn(self, now: float, text: str, *arguments: object, detail: object = "") -> None:
        """Say it, unless it was said lately. `now` is in seconds."""
        often = self._repeats.due(f"{text} {arguments}", now)
        if often is not None:
            self._log.warning(f"{text}%s%s", *arguments, f": {detail}" if str(detail) else "", often)
