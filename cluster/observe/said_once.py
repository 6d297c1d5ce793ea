"""Warnings of what happens again and again: once, then once a minute with how often."""

import logging

_QUIET_SECONDS = 60.0


class SaidOnce:
    """Warnings in one log. Two are the same if text and arguments are, apart from the `detail` that comes last."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, tuple[float, int]] = {}  # when it was said last, how often it happened since

    def warn(self, now: float, text: str, *arguments: object, detail: object = "") -> None:
        """Say it, unless it was said lately. `now` is in seconds."""
        key, often = f"{text} {arguments}", ""
        if key in self._said:
            said, count = self._said[key]
            if now - said < _QUIET_SECONDS:
                self._said[key] = said, count + 1
                return
            often = f" ({count + 1} times since it was said last, {now - said:.0f} s ago)"
        self._said[key] = now, 0
        self._log.warning(f"{text}%s%s", *arguments, f": {detail}" if str(detail) else "", often)
