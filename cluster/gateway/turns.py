"""A queue for each party; the parties take turns."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from itertools import chain
from typing import Generic, TypeVar

Party = TypeVar("Party", bound=Hashable)
Item = TypeVar("Item")


class Turns(Generic[Party, Item]):
    """It holds and orders items, and does nothing with them."""

    def __init__(self) -> None:
        self._queues: dict[Party, deque[Item]] = {}  # in the order of their turns; never an empty one

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __iter__(self) -> Iterator[Party]:
        return iter(self._queues)

    def waiting(self, party: Party) -> int:
        return len(self._queues.get(party, ()))

    def add(self, party: Party, item: Item) -> None:
        self._queues.setdefault(party, deque()).append(item)

    def pop(self, may: Callable[[Party], bool] = lambda party: True) -> tuple[Party, Item] | None:
        """Take the oldest item of the first party that `may`; the party's next turn is after the others'."""
        party = next(filter(may, self._queues), None)
        if party is None:
            return None
        queue = self._queues.pop(party)
        item = queue.popleft()
        if queue:
            self._queues[party] = queue
        return party, item

    def remove(self, party: Party, item: Item) -> bool:
        """Take an item out of turn; False if it does not wait any more."""
        queue = self._queues.get(party, deque())
        if item not in queue:
            return False
        queue.remove(item)
        if not queue:
            del self._queues[party]
        return True

    def items(self) -> Iterator[Item]:
        return chain.from_iterable(self._queues.values())

    def check(self) -> None:
        assert all(self._queues.values())
