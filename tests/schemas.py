"""JSON schemas by lot: nested, overlapping, numbers up to 2**70, formats, Unicode names. All are well-formed."""

import random
from collections.abc import Callable
from typing import Any

NAMES = ["a", "b", "score", "ok", "naïve", "日本", "👍", "a b", 'q"q', "back\\slash", "x_1", "x_22", "é/ü", ""]
PATTERNS = ["^score$", "^x_", "^[a-z]$", "^(a|b)$", "o", ".*", "^x_[0-9]{1,2}$", "^é", "^a", "b$"]
FORMATS = ["date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "binary", "byte", "password", "regex", "iri"]
FORMATS += ["uri-reference", "json-pointer", "int32", "int64", "float", "no-such-format"]


class Lot:
    """Draws schemas."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def _some(self, chance: float) -> bool:
        return self._rng.random() < chance

    def integer(self) -> int:
        """Small, near a power of two, or an id as databases have them."""
        kind = self._rng.randrange(3)
        if kind == 0:
            return self._rng.randint(-20, 1000)
        near = (1 << self._rng.randint(0, 70)) + self._rng.randint(-2, 2)
        return near * self._rng.choice([1, -1])

    def number(self) -> float:
        """An integer, or one with digits after the point."""
        if self._some(0.6):
            return self.integer()
        return round(self._rng.uniform(-1000, 1000), self._rng.randint(1, 6))

    def value(self, depth: int = 2) -> Any:
        """What stands under `const` and `enum`."""
        kind = self._rng.randrange(7 if depth else 5)
        if kind == 0:
            return self._rng.choice([None, True, False])
        if kind < 3:
            return self.number()
        if kind < 5:
            return self._rng.choice(NAMES)
        if kind == 5:
            return [self.value(depth - 1) for _ in range(self._rng.randrange(3))]
        return {self._rng.choice(NAMES): self.value(depth - 1) for _ in range(self._rng.randrange(3))}

    def schema(self, depth: int = 3) -> Any:
        """A schema, refused or not."""
        if self._some(0.04):
            return self._some(0.8)
        makers: list[Callable[[int], dict[str, Any]]] = [self._number, self._number, self._string, self._constant]
        if depth:
            makers += [self._object, self._object, self._object, self._array, self._combined]
        found = self._rng.choice(makers)(depth - 1)
        if self._some(0.05):
            found["description"] = "x"
        return found

    def _constant(self, depth: int) -> dict[str, Any]:
        if self._some(0.5):
            return {"const": self.value()}
        found: dict[str, Any] = {"enum": [self.value() for _ in range(self._rng.randint(1, 4))]}
        if self._some(0.3):
            found["type"] = self._rng.choice(["integer", "number", "string", "object", "array"])
        return found

    def _number(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {"type": self._rng.choice(["integer", "integer", "number", ["integer", "null"]])}
        for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if self._some(0.3):
                found[keyword] = self.number()
        if self._some(0.25):
            found["multipleOf"] = self._rng.choice([2, 3, 7, 10, 0.5, 0.01, 0.07, 1e-6, 0.1, 250, 1 << 54, 12345])
        if self._some(0.2):
            found["format"] = self._rng.choice(["int32", "int64", "float", "double"])
        return found

    def _string(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "string"}
        if self._some(0.3):
            found["minLength"] = self._rng.randint(0, 3)
        if self._some(0.5):
            found["maxLength"] = self._rng.randint(1, 12)
        if self._some(0.3):
            found["pattern"] = self._rng.choice(["^[a-z]+$", "é", "^a|b$", "[0-9]{2}", "^.{3}$"])
        if self._some(0.35):
            found["format"] = self._rng.choice(FORMATS)
        return found

    def _object(self, depth: int) -> dict[str, Any]:
        names = self._rng.sample(NAMES, self._rng.randint(0, 4))
        found: dict[str, Any] = {"type": "object", "properties": {n: self.schema(depth) for n in names}}
        if self._some(0.1):
            del found["type"]
        if self._some(0.6):
            found["required"] = [n for n in names if self._some(0.6)]
            if self._some(0.1):
                found["required"].append(self._rng.choice(NAMES))
        if self._some(0.5):
            found["additionalProperties"] = False if self._some(0.5) else self.schema(0)
        if self._some(0.3):
            chosen = self._rng.sample(PATTERNS, self._rng.randint(1, 2))
            found["patternProperties"] = {p: self.schema(min(depth, 1)) for p in chosen}
        if self._some(0.1):
            found[self._rng.choice(["minProperties", "maxProperties"])] = self._rng.randint(0, 3)
        return found

    def _array(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "array"}
        if self._some(0.8):
            found["items"] = self.schema(depth)
        if self._some(0.3):
            found["prefixItems"] = [self.schema(depth) for _ in range(self._rng.randint(1, 2))]
        if self._some(0.3):
            found["minItems"] = self._rng.randint(0, 2)
        if self._some(0.6):
            found["maxItems"] = self._rng.randint(0, 3)
        return found

    def _combined(self, depth: int) -> dict[str, Any]:
        keyword = self._rng.choice(["anyOf", "allOf", "oneOf"])
        found: dict[str, Any] = {keyword: [self.schema(depth) for _ in range(self._rng.randint(1, 3))]}
        if self._some(0.3):
            beside = self.schema(depth)
            found |= beside if isinstance(beside, dict) and keyword not in beside else {}
        if self._some(0.3):
            found["$defs"] = {"é": self.schema(depth)}
            found[keyword].append({"$ref": "#/$defs/%C3%A9"})
        return found
