"""How long to leave something alone that does not succeed. Times are arguments, on one clock, in seconds."""

from collections.abc import Collection, Hashable

_FIRST, _LONGEST = 5.0, 60.0


class Backoff:
    """By key: after a failure a pause of 5 s, doubled with each further one in a row, up to a minute."""

    def __init__(self) -> None:
        self._pauses: dict[Hashable, tuple[float, float]] = {}  # until when, and how long the next one is

    def failed(self, key: Hashable, now: float) -> None:
        _, pause = self._pauses.get(key, (now, _FIRST))
        self._pauses[key] = now + pause, min(2 * pause, _LONGEST)

    def cleared(self, key: Hashable) -> None:
        """Forget the failures of this key: it succeeded, or an operator wants it tried at once."""
        self._pauses.pop(key, None)

    def keep(self, keys: Collection[Hashable]) -> None:
        """Forget all others."""
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in keys}

    def pauses(self, key: Hashable, now: float) -> bool:
        until, _ = self._pauses.get(key, (now, _FIRST))
        return now < until
