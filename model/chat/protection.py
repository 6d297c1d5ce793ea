"""Keeps what users write from becoming control tokens in a text that a template lays out.

A template gives one text, in which tokens are found by their names (`<|im_end|>`). So a character of every name that a
user wrote, or that the template's own text might complete, is replaced by a character in private use for as long as
names are looked for.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from model.text.names import Names

_PRIVATE = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))


class Edges:
    """The beginnings of names, which may end what a user wrote, the ends, which may begin it, and what lies between."""

    def __init__(self, names: Iterable[str]) -> None:
        names = tuple(names)
        self._heads = {name[:n] for name in names for n in range(1, len(name))}
        self._tails = {name[n:] for name in names for n in range(1, len(name))}
        self._all, self._longest = "\0".join(names), max(map(len, names), default=0)

    def at_end(self, text: str) -> bool:
        """Whether the text's end begins a name."""
        return any(text[-n:] in self._heads for n in range(1, min(len(text), self._longest) + 1))

    def at_beginning(self, text: str) -> bool:
        """Whether the text's beginning ends a name, or the text is part of one."""
        if any(text[:n] in self._tails for n in range(1, min(len(text), self._longest) + 1)):
            return True
        return len(text) < self._longest and text in self._all


class Protection:
    """Of one conversation."""

    def __init__(self, names: Names, edges: Edges, texts: Iterable[str]) -> None:
        """`texts` are all that a stand-in must not be confused with: messages and template."""
        self._names, self._edges = names, edges
        taken = set[str]().union(*texts)
        self._free = (chr(point) for point in _PRIVATE if chr(point) not in taken)
        self._standing_in: dict[str, str] = {}  # of a character

    def of(self, value: Any) -> Any:
        """A value as JSON has them, with all of its texts protected."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(name): self.of(inner) for name, inner in value.items()}
        return [self.of(inner) for inner in value] if isinstance(value, list) else value

    def text(self, text: str) -> str:
        safe = list(text)
        for begin, _ in self._names.places(text):
            safe[begin] = self._stand_in(text[begin])
        begin, end = len(text) - len(text.lstrip()), len(text.rstrip())  # templates may trim
        for first, last in {(0, len(text)), (begin, end)}:
            if first < last:
                if self._edges.at_end(text[first:last]):
                    safe[last - 1] = self._stand_in(text[last - 1])
                if self._edges.at_beginning(text[first:last]):
                    safe[first] = self._stand_in(text[first])
        return "".join(safe)

    def restored(self, text: str) -> str:
        """The text as it was written."""
        return text.translate({ord(private): c for c, private in self._standing_in.items()})

    def _stand_in(self, character: str) -> str:
        if character not in self._standing_in:
            self._standing_in[character] = next(self._free)
        return self._standing_in[character]
