"""A caller's JSON schema, made ready for the generator: a part that it would not follow to the letter is refused, or
rewritten into one that it does follow.

This is strict where the generator is lax: numbers keep their value (`exact.py`), formats have their full meaning
(`formats.py`), patternProperties leave a name to write, and a `$ref` leads to a schema.
"""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from model.constraint.exact import check_constant, check_multiples, highest, lowest, parse_float
from model.constraint.formats import ENFORCED, PATTERNS, RANGES

# Limits on schemas that compile slowly although their text is short. Measured, in seconds: 7 for a multipleOf of
# 1,000,003 (one state of an automaton for each remainder), 10 for 400 patternProperties (every two are compared), 1 for
# 4,000 optional properties (every one may follow every earlier one).
_MAX_MULTIPLE = 10_000
_MAX_PATTERN_PROPERTIES = 10
_MAX_PROPERTIES = 1_000
_MAX_DEPTH = 100
# The least number of names for a patternProperties: with fewer a text could reach a comma with nothing to follow.
ENOUGH_NAMES = 64

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_ONES = ("items", "additionalItems", "additionalProperties")
_DATA = ("const", "enum", "default", "examples", "example")

# At most ENOUGH_NAMES names that all of the first and none of the second patterns match.
Names = Callable[[list[str], list[str]], set[str]]


def read(text: str, names: Names) -> dict[str, Any]:
    """The schema as the generator should read it; ValueError with a reason if no output is sure to fit it."""
    try:
        schema = json.loads(text, parse_float=parse_float, parse_constant=_no_constant)
        json.dumps(schema, allow_nan=False, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnicodeEncodeError:
        raise ValueError("it holds a number out of range, or a lone surrogate") from None
    except RecursionError:
        raise ValueError(f"it nests deeper than {_MAX_DEPTH}") from None
    if schema is True:
        schema = {}
    if schema is False:
        raise ValueError("no text fits it: it is false")
    if not isinstance(schema, dict):
        raise ValueError("it is neither an object nor a boolean")
    if "x-guidance" in schema:  # the library's own keyword, which would replace our options
        raise ValueError("the keyword x-guidance is not supported")
    _check_sizes(schema)
    return _Reader(names).read(schema)


def _no_constant(text: str) -> float:
    raise ValueError("it holds a number out of range, or a lone surrogate")


def _check_sizes(schema: object) -> None:
    """Refuse a schema that would compile for seconds. Counts every value, data under `const` and `default` included."""
    counts, steps = {"properties": 0, "patternProperties": 0}, list[int | float]()
    todo: list[tuple[object, int]] = [(schema, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"it nests deeper than {_MAX_DEPTH}")
        if isinstance(value, list):
            todo += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            todo += [(item, depth + 1) for item in value.values()]
            for keyword in counts:
                counts[keyword] += len(value[keyword]) if isinstance(value.get(keyword), dict) else 0
            step = value.get("multipleOf")
            if isinstance(step, int | float) and not isinstance(step, bool):
                steps.append(step)
    for keyword, most in (("properties", _MAX_PROPERTIES), ("patternProperties", _MAX_PATTERN_PROPERTIES)):
        if counts[keyword] > most:
            raise ValueError(f"it has {counts[keyword]} {keyword}, and {most} are the most")
    check_multiples(steps, _MAX_MULTIPLE)


class _Reader:
    """One walk through a schema, which rewrites every schema in it and notes its pointer."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._pointers, self._references = set[str](), list[str]()

    def read(self, schema: dict[str, Any]) -> dict[str, Any]:
        rewritten = self._schema(schema, "")
        for reference in self._references:
            pointer = unquote(reference[1:])
            if reference.startswith("#") and (not pointer or pointer[0] == "/") and pointer not in self._pointers:
                raise ValueError(f"a $ref points to {reference[:100]!r}, which it does not have as a schema")
        assert isinstance(rewritten, dict)
        return rewritten

    def _schema(self, schema: Any, at: str) -> Any:
        self._pointers.add(at)
        if not isinstance(schema, dict):
            return schema  # a boolean; the library says what is wrong with anything else
        if isinstance(schema.get("$ref"), str):
            self._references.append(schema["$ref"])
        for keyword in ("const", "enum"):
            check_constant(schema.get(keyword))
        new = dict(schema)
        for keyword in _MAPS:
            if isinstance(held := schema.get(keyword), dict):
                new[keyword] = {name: self._schema(s, f"{at}/{keyword}/{_escaped(name)}") for name, s in held.items()}
        for keyword in (*_LISTS, "items"):
            if isinstance(held := schema.get(keyword), list):
                new[keyword] = [self._schema(s, f"{at}/{keyword}/{i}") for i, s in enumerate(held)]
        for keyword in _ONES:
            if keyword in schema and not isinstance(schema[keyword], list):
                new[keyword] = self._schema(schema[keyword], f"{at}/{keyword}")
        if "prefixItems" in schema and ("additionalItems" in schema or isinstance(schema.get("items"), list)):
            raise ValueError("prefixItems cannot stand beside additionalItems or a list of items")
        self._object(new)
        _number(new)
        _format(new)
        return new

    def _object(self, schema: dict[str, Any]) -> None:
        properties, required = schema.get("properties"), schema.get("required")
        declared = [*(properties if isinstance(properties, dict) else ())]
        declared += [n for n in (required if isinstance(required, list) else ()) if isinstance(n, str)]
        for name in declared:
            if any(c < " " and c not in "\b\f\n\r\t" for c in name):
                raise ValueError(f"the property name {name[:40]!r} has a control character")
        patterns = schema.get("patternProperties")
        if not isinstance(patterns, dict) or not patterns:
            return
        for pattern, held in patterns.items():
            if held is False:
                continue
            found = self._names([pattern], [])
            if len(found - set(declared)) < ENOUGH_NAMES and len(found) < ENOUGH_NAMES:
                raise ValueError(
                    f"patternProperties {pattern[:60]!r} means {len(found)} names only: declare them under properties"
                )
        if schema.get("additionalProperties", True) is False:
            return
        others = self._names([], list(patterns))
        if not others:
            schema["additionalProperties"] = False
        elif len(others) < ENOUGH_NAMES:
            raise ValueError("patternProperties leave very few other names: set additionalProperties to false")


def _number(schema: dict[str, Any]) -> None:
    """Move bounds to numbers that can be kept; give `int32` and `int64` their range."""
    for keyword, move in (("minimum", lowest), ("maximum", highest)):
        for key in (keyword, f"exclusive{keyword.capitalize()}"):
            value = schema.get(key)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if isinstance(value, int) and abs(value) > 1 << 53:
                inclusive = value if key == keyword else value + (1 if keyword == "minimum" else -1)
                del schema[key]
                moved = move(inclusive)
                kinds = schema.get("type")
                if kinds != "integer" and "number" in (kinds if isinstance(kinds, list) else [kinds, "number"]):
                    raise ValueError(f"the {key} {value} is larger than can be kept exactly; give type integer")
                _tighten(schema, keyword, moved)
    span, kinds = RANGES.get(str(schema.get("format"))), schema.get("type")
    if span and "integer" in (kinds if isinstance(kinds, list) else [kinds]):
        _tighten(schema, "minimum", lowest(span[0]))
        _tighten(schema, "maximum", highest(span[1]))


def _tighten(schema: dict[str, Any], keyword: str, bound: float) -> None:
    old = schema.get(keyword)
    if isinstance(old, int | float) and not isinstance(old, bool):
        bound = max(old, bound) if keyword == "minimum" else min(old, bound)
    schema[keyword] = bound


def _format(schema: dict[str, Any]) -> None:
    """Drop formats that are not enforced; turn dates and times into patterns."""
    name = schema.get("format")
    if not isinstance(name, str) or name in ENFORCED:
        return
    del schema["format"]
    if pattern := PATTERNS.get(name):
        if "pattern" in schema:
            schema["allOf"] = [*schema.get("allOf", []), {"pattern": pattern}]
        else:
            schema["pattern"] = pattern


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
