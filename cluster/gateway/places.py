"""Places, which bound how many calls, bodies or watches of all connections are under way, and refuse with a reason."""

from types import TracebackType

from cluster.gateway.errors import exhausted


class Places:
    """A bound on how many run at once. `with places:` takes a place, or raises ApiError (EXHAUSTED, with a retry)."""

    def __init__(self, most: int, reason: str, what: str) -> None:
        self._most, self._reason, self._what = most, reason, what
        self.taken = 0

    def __enter__(self) -> None:
        if self.taken >= self._most:
            text = f"{self._most} {self._what} are under way, which is the most; try again later"
            raise exhausted(self._reason, text, 1.0)
        self.taken += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.taken -= 1
