"""How long to leave something alone that does not succeed. Pure: times are arguments, on one clock, in seconds."""

_FIRST, _LONGEST = 5.0, 60.0


class Backoff:
    """By expert: after a failure a pause of 5 s, doubled with each further one in a row, up to a minute."""

    def __init__(self) -> None:
        self._pauses: dict[int, tuple[float, float]] = {}  # until when, and how long the next one is

    def failed(self, expert: int, now: float) -> None:
        """It begins to pause."""
        _, pause = self._pauses.get(expert, (now, _FIRST))
        self._pauses[expert] = now + pause, min(2 * pause, _LONGEST)

    def cleared(self, expert: int) -> None:
        """It succeeded, or somebody wants it tried at once."""
        self._pauses.pop(expert, None)

    def pauses(self, expert: int, now: float) -> bool:
        """Whether to leave it alone now."""
        return expert in self._pauses and now < self._pauses[expert][0]
