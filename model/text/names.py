"""Finds tokens in a text by their names."""

import re
from collections.abc import Iterable, Iterator

from model.text.text_files import AddedToken


class Names:
    """Of a vocabulary's added and control tokens; some have hundreds, so a text is looked at only where a name may
    begin. Immutable; may be shared between threads.
    """

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.tokens = {token.text: token for token in tokens}
        lengths: dict[str, set[int]] = {}
        for name in self.tokens:
            lengths.setdefault(name[0], set()).add(len(name))
        self._lengths = {first: sorted(of_first, reverse=True) for first, of_first in lengths.items()}
        self._first = re.compile(f"[{re.escape(''.join(self._lengths))}]") if lengths else None

    def places(self, text: str) -> Iterator[tuple[int, AddedToken]]:
        """Every place where a name begins, with the longest one there; names may overlap."""
        for match in self._first.finditer(text) if self._first else ():
            begin = match.start()
            for length in self._lengths[match.group()]:
                token = self.tokens.get(text[begin : begin + length])
                if token is not None and (not token.single_word or _alone(text, begin, begin + length)):
                    yield begin, token
                    break

    def parts(self, text: str) -> Iterator[str | AddedToken]:
        """A text as the tokens that are named in it and the stretches between, from its beginning to its end."""
        end = 0
        for begin, token in self.places(text):
            if begin < end:
                continue
            before = text[end:begin].rstrip() if token.lstrip else text[end:begin]
            if before:
                yield before
            yield token
            end = begin + len(token.text)
            while token.rstrip and end < len(text) and text[end].isspace():
                end += 1
        if end < len(text):
            yield text[end:]


def _alone(text: str, begin: int, end: int) -> bool:
    """Whether no letter, digit or underscore touches the stretch."""
    beside = text[max(0, begin - 1) : begin] + text[end : end + 1]
    return not re.search(r"\w", beside)
