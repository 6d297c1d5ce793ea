r"""The property names of a JSON text while it is written: none may come twice in one object.

A grammar cannot count names, so this follows the text beside it. Each name has one spelling: a control character is
written with its short escape, and `\u` and `\/` are not used in names. So equal spelling means equal meaning, and a
declared name cannot come again in disguise.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_QUOTE, _ESCAPE = ord('"'), ord("\\")
_FORBIDDEN_ESCAPES = b"u/"


class Place(NamedTuple):
    """A place in the text. `stack` has the names of each open object, and None for an open array. `inside` tells of a
    string whether it is a "value" or a "name" ("" outside of one), `escaped` whether a backslash came last, `name` the
    beginning of a name.
    """

    stack: tuple[frozenset[bytes] | None, ...] = ()
    inside: str = ""
    escaped: bool = False
    name_next: bool = False
    name: bytes = b""


def advance(place: Place, piece: bytes) -> Place | None:
    """The place after `piece`, or None if it completes a name for the second time, or has a forbidden escape in one.
    Example: from `{"a": 1, "`, the piece `a` is fine, and then `"` is not.
    """
    stack, inside, escaped, name_next, name = place
    for byte in piece:
        if inside:
            if inside == "name" and escaped and byte in _FORBIDDEN_ESCAPES:
                return None
            if byte == _QUOTE and not escaped:
                if inside == "name":
                    names = stack[-1]
                    if names is None or name in names:
                        return None
                    stack = (*stack[:-1], names | {name})
                inside, name = "", b""
                continue
            if inside == "name":
                name += bytes((byte,))
            escaped = byte == _ESCAPE and not escaped
        elif byte == _QUOTE:
            inside = "name" if name_next and stack and stack[-1] is not None else "value"
            name_next = False
        elif byte in b"{[":
            stack, name_next = (*stack, frozenset() if byte == ord("{") else None), byte == ord("{")
        elif byte in b"}]":
            stack, name_next = stack[:-1], False
        elif byte == ord(","):
            name_next = bool(stack) and stack[-1] is not None
    return Place(stack, inside, escaped, name_next, name)


class Pieces:
    """A vocabulary, and its pieces that can complete or disguise a name at all; shared by all texts."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.all = list(pieces)
        self._in_name = self._ids(lambda p: b'"' in p or b"\\" in p or p[:1] in (b"u", b"/"))
        # Outside of a name a piece must begin one before it can end it.
        self._elsewhere = self._ids(lambda p: p.count(b'"') >= 2 or (b'"' in p and b"\\" in p))

    def _ids(self, fits: Callable[[bytes], bool]) -> NDArray[np.int64]:
        return np.array([i for i, piece in enumerate(self.all) if piece and fits(piece)], np.int64)

    def forbid(self, place: Place, mask: NDArray[np.bool_]) -> None:
        """Take the ids out of the mask that `advance` refuses."""
        ids = self._in_name if place.inside == "name" else self._elsewhere
        for i in ids[mask[ids]]:
            if advance(place, self.all[i]) is None:
                mask[i] = False
