"""The pool of KV pages: who owns which is written down here and nowhere else. Pure."""

from collections.abc import Iterable


class BlockPool:
    """`count` pages, named 0 to count - 1, each free or owned by one holder."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._owned: set[int] = set()

    @property
    def free_count(self) -> int:
        """Pages that can be taken."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Take `count` pages; the caller has seen that as many are free."""
        assert count <= len(self._free), f"{count} pages wanted, {len(self._free)} free"
        pages = [self._free.pop() for _ in range(count)]
        self._owned.update(pages)
        return pages

    def give_back(self, pages: Iterable[int]) -> None:
        """Return pages that were taken."""
        for page in pages:
            assert page in self._owned, f"page {page} is not taken"
            self._owned.remove(page)
            self._free.append(page)

    def check(self) -> None:
        """Raise AssertionError unless every page is exactly once free or owned."""
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        assert not free & self._owned, "a page is both free and owned"
        assert len(free) + len(self._owned) == self.count, "a page is lost"
