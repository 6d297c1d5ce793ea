"""A JSON body, read field by field. As OpenAI's own servers have it, null is absent and unknown fields are ignored."""

import json
from collections.abc import Mapping
from typing import Any

from cluster.gateway.errors import ApiError, ErrorKind, Violations, exhausted


def parsed(raw: bytes, most: int) -> Mapping[str, Any]:
    """The object that a body holds; raises ApiError if it is none, or may hold more than `most` lists and objects,
    which take a hundred times the memory of their bytes.
    """
    if raw.count(b"[") + raw.count(b"{") > most:
        raise exhausted("MESSAGE_TOO_LARGE", f"the body has more than {most} opening brackets")
    try:
        value = json.loads(raw.decode())
        if rb"\ud" in raw.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise ApiError(ErrorKind.INVALID, "MALFORMED_BODY", f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(ErrorKind.INVALID, "MALFORMED_BODY", "the body must be a JSON object")
    return value


class Body:
    """Each method reads one field. Of a wrong one it notes the violation and returns what absence would give."""

    def __init__(self, values: Mapping[str, Any], found: Violations, at: str = "") -> None:
        """`at` is put before the names of fields in violations."""
        self._values, self.found, self._at = values, found, at
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self.raw(name) is not None

    def raw(self, name: str) -> Any:
        self._read.add(name)
        return self._values.get(name)

    def unread(self) -> list[str]:
        """The names of fields that are there and that nobody has asked for."""
        return [name for name, value in self._values.items() if value is not None and name not in self._read]

    def path(self, name: str) -> str:
        return f"{self._at}{name}"

    def text(self, name: str) -> str:
        return self._typed(name, str, "a string") or ""

    def flag(self, name: str, otherwise: bool = False) -> bool:
        value = self._typed(name, bool, "true or false")
        return otherwise if value is None else value

    def number(self, name: str) -> float | None:
        value: float | None = self.raw(name)
        if value is None or is_number(value):
            return value
        self.found.add(self.path(name), "must be a number")
        return None

    def integer(self, name: str, least: int = -(1 << 31), most: int = (1 << 31) - 1) -> int | None:
        value = self.raw(name)
        if isinstance(value, float) and value.is_integer():  # what some JSON libraries make of an integer
            value = int(value)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.found.add(self.path(name), f"must be an integer, {least} to {most}")
            return None
        return value

    def texts(self, name: str) -> list[str]:
        """A string, or a list of strings."""
        value = self.raw(name)
        if value is None:
            return []
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list) or not all(isinstance(one, str) for one in several):
            self.found.add(self.path(name), "must be a string or a list of strings")
            return []
        return several

    def integers(self, name: str) -> list[int]:
        value = self.raw(name)
        if value is None:
            return []
        if not is_integers(value):
            self.found.add(self.path(name), "must be a list of integers")
            return []
        return list(value)

    def object(self, name: str) -> "Body | None":
        value = self._typed(name, dict, "an object")
        return None if value is None else Body(value, self.found, f"{self.path(name)}.")

    def objects(self, name: str) -> list["Body"]:
        value = self._typed(name, list, "a list of objects") or []
        if not all(isinstance(one, dict) for one in value):
            self.found.add(self.path(name), "must be a list of objects")
            return []
        return [Body(one, self.found, f"{self.path(name)}[{i}].") for i, one in enumerate(value)]

    def refuse(self, name: str, why: str) -> None:
        self.found.add(self.path(name), why)

    def _typed(self, name: str, kind: type, what: str) -> Any:
        value = self.raw(name)
        if value is None or isinstance(value, kind):
            return value
        self.found.add(self.path(name), f"must be {what}")
        return None


def is_number(value: object) -> bool:
    """Whether it is one, and no larger than a float can be."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 1 << 64)


def is_integers(value: object) -> bool:
    """Whether it is a list of ids as protobuf takes them."""
    return isinstance(value, list) and all(type(one) is int and -(1 << 31) <= one < 1 << 31 for one in value)
