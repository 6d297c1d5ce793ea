"""What happens again and again is said once, and later how often it did. Pure: it is told the time, in seconds."""

_QUIET_SECONDS = 60.0


class Repeats:
    """Of several kinds of events, by any key."""

    def __init__(self, quiet: float = _QUIET_SECONDS) -> None:
        self._quiet = quiet
        self._said: dict[str, tuple[float, int]] = {}  # key -> when it was said last, how often it happened since

    def due(self, key: str, now: float) -> str | None:
        """What to add to the line that is due now, or None if there shall be none."""
        if key not in self._said:
            self._said[key] = now, 0
            return ""
        said, count = self._said[key]
        if now - said < self._quiet:
            self._said[key] = said, count + 1
            return None
        self._said[key] = now, 0
        return f" ({count + 1} times since it was said last, {now - said:.0f} s ago)"
