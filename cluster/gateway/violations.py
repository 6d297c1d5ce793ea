"""Gathers the wrong fields of one request, so that the client is told of all of them at once."""

from collections.abc import Callable
from typing import TypeVar

from cluster.gateway.errors import Violation, invalid

T = TypeVar("T")

_MOST = 1000  # a status names fewer


class Violations:
    """The wrong fields found so far."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, path: str, text: str) -> None:
        """Add a field by its path in the request; `text` says what to change."""
        if len(self._found) < _MOST:
            self._found.append(Violation(path, text))

    def unless(self, good: bool, path: str, text: str) -> None:
        """Add a field that is not `good`."""
        if not good:
            self.add(path, text)

    def ids(self, ids: list[int], path: str, count: int) -> None:
        """Add the first id that is not one of the vocabulary's `count` ids."""
        bad = next((i for i, token in enumerate(ids) if not 0 <= token < count), None)
        if bad is not None:
            self.add(f"{path}[{bad}]", f"is {ids[bad]}, but ids are 0 to {count - 1}")

    def attempt(self, path: str, work: Callable[[], T], otherwise: T) -> T:
        """The result of `work`, or `otherwise` after its ValueError, whose text is written for clients."""
        try:
            return work()
        except ValueError as error:
            self.add(path, str(error))
            return otherwise

    def raise_any(self) -> None:
        """Raise ApiError if there is a wrong field."""
        if self._found:
            raise invalid(self._found)
