"""The pool of KV pages: which are held, and what they contain, is written down here and nowhere else.

Several sequences may hold a page. A page without holders is free to be taken, but until that happens it keeps its
contents, which are found again by their key (vLLM's automatic prefix caching). The page freed longest ago is taken
first, and pages whose contents cannot be found before any other.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable


class BlockPool:
    """`count` pages, named 0 to count - 1, each free or held by one or more."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))  # in the order in which they are taken
        self._holders = Counter[int]()
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    @property
    def free_count(self) -> int:
        return len(self._free)

    def holders(self, page: int) -> int:
        return self._holders[page]

    def take(self, count: int) -> list[int]:
        """Take `count` pages, whose contents are forgotten; as many must be free."""
        assert count <= len(self._free), f"{count} pages wanted, {len(self._free)} free"
        pages = [self._free.popitem(last=False)[0] for _ in range(count)]
        self.forget(pages)
        self._holders.update(pages)
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """Hold pages beside their holders, or take free ones back with what they contain."""
        for page in pages:
            self._free.pop(page, None)
            self._holders[page] += 1

    def give_back(self, pages: Iterable[int]) -> None:
        for page in pages:
            assert page in self._holders, f"page {page} is not taken"
            self._holders[page] -= 1
            if not self._holders[page]:
                del self._holders[page]
                self._free[page] = None
                if page not in self._key_of:
                    self._free.move_to_end(page, last=False)

    def publish(self, page: int, key: bytes) -> None:
        """A held page is filled for good and can be found by `key`; what is known under that key already stays."""
        assert page in self._holders, f"page {page} is not taken"
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key], self._key_of[page] = page, key

    def find(self, key: bytes) -> int | None:
        return self._page_of.get(key)

    def forget_contents(self) -> None:
        """Nothing can be found any more: the memory behind the pages is lost."""
        self._page_of.clear()
        self._key_of.clear()

    def forget(self, pages: Iterable[int]) -> None:
        """These pages cannot be found any more: they are written anew, or what they hold is not to be trusted."""
        for page in pages:
            if page in self._key_of:
                del self._page_of[self._key_of.pop(page)]

    def check(self) -> None:
        """Raise AssertionError unless every page is either free or held, and every key names one page."""
        assert not self._free.keys() & self._holders.keys(), "a page is both free and held"
        assert len(self._free) + len(self._holders) == self.count, "a page is lost"
        assert all(count > 0 for count in self._holders.values()), "a page is held by nobody"
        assert {key: page for page, key in self._key_of.items()} == self._page_of, "a key names another page"
