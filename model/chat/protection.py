"""Keeps what users write from becoming control tokens in a text that a template lays out.

A template gives one text, in which tokens are found by their names (`<|im_end|>`). So a character of every name that a
user wrote, or that the template's own text might complete, is replaced by a character in private use for as long as
names are looked for.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_PRIVATE = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))


class Protection:
    def __init__(self, names: Iterable[str], texts: Iterable[str]) -> None:
        """`names` of tokens; `texts` are all that a stand-in must not be confused with: messages and template."""
        self._names = tuple(names)
        starts = "|".join(map(re.escape, self._names))
        self._start = re.compile(f"(?={starts})(.)", re.DOTALL) if starts else None
        taken = set().union(*texts)
        self._free = (chr(point) for point in _PRIVATE if chr(point) not in taken)
        self._standing_in: dict[str, str] = {}  # of a character
        # Beginnings of names that may end what a user wrote, ends that may begin it, and what lies between.
        self._heads = {name[:n] for name in self._names for n in range(1, len(name))}
        self._tails = {name[n:] for name in self._names for n in range(1, len(name))}

    def of(self, value: Any) -> Any:
        """A value as JSON has them, with all of its texts protected."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.of(name): self.of(inner) for name, inner in value.items()}
        return [self.of(inner) for inner in value] if isinstance(value, list) else value

    def text(self, text: str) -> str:
        if self._start is None or not text:
            return text
        safe = list(text)
        for match in self._start.finditer(text):
            safe[match.start()] = self._stand_in(text[match.start()])
        begin, end = len(text) - len(text.lstrip()), len(text.rstrip())  # templates may trim
        for first, last in {(0, len(text)), (begin, end)}:
            inner = text[first:last]
            if not inner:
                continue
            if any(inner.endswith(head) for head in self._heads):
                safe[last - 1] = self._stand_in(text[last - 1])
            if any(inner.startswith(tail) for tail in self._tails) or any(inner in name for name in self._names):
                safe[first] = self._stand_in(text[first])
        return "".join(safe)

    def restored(self, text: str) -> str:
        """The text as it was written."""
        return text.translate({ord(private): c for c, private in self._standing_in.items()})

    def is_stand_in(self, character: str) -> bool:
        return character in self._standing_in.values()

    def _stand_in(self, character: str) -> str:
        if character not in self._standing_in:
            self._standing_in[character] = next(self._free)
        return self._standing_in[character]
