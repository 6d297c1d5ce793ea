"""A caller's JSON schema, made ready for the generator: a part that it would not follow to the letter is refused, or
rewritten into one that it does follow.

This is strict where the generator is lax: numbers keep their value (`exact.py`), formats have their full meaning,
patternProperties leave a name to write, and a `$ref` leads to a schema.
"""

import json
from typing import Any, TypeGuard
from urllib.parse import unquote

from model.constraint.exact import check_constant, check_multiples, highest, lowest, parse_float
from model.constraint.property_names import ENOUGH_NAMES, names

# Limits on schemas that compile slowly although their text is short. Measured, in seconds: 7 for a multipleOf of
# 1,000,003 (one state of an automaton for each remainder), 10 for 400 patternProperties (every two are compared), 1 for
# 4,000 optional properties (every one may follow every earlier one).
_MAX_MULTIPLE = 10_000
_MAX_COUNTS = {"properties": 1_000, "patternProperties": 10}
_MAX_DEPTH = 100

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_ONES = ("items", "additionalItems", "additionalProperties")

# The meaning of `format`. An unknown one is an annotation, as JSON Schema has it, and demands nothing. llguidance
# enforces these; dates and times become patterns, because they must be real ones (RFC 3339, leap years included).
_ENFORCED = frozenset({"duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})

_LONG = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
_SHORT = "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
_FEBRUARY = "02-(?:0[1-9]|1[0-9]|2[0-8])"
_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29"
# Calendars have no year 0, so `0000` is refused.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DATE = f"(?:{_YEAR}-(?:{_LONG}|{_SHORT}|{_FEBRUARY})|{_LEAP})"
# A leap second is not offered: most readers refuse it, and no rule says which day has one.
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}

# OpenAPI's formats of integers: the lowest and the highest number.
_RANGES = {"int32": (-(1 << 31), (1 << 31) - 1), "int64": (-(1 << 63), (1 << 63) - 1)}


def read(text: str) -> dict[str, Any]:
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
    pointers, references = set[str](), list[str]()
    rewritten: dict[str, Any] = _rewritten(schema, "", pointers, references)
    for reference in references:
        pointer = unquote(reference[1:])
        if reference.startswith("#") and (not pointer or pointer[0] == "/") and pointer not in pointers:
            raise ValueError(f"a $ref points to {reference[:100]!r}, which it does not have as a schema")
    return rewritten


def _no_constant(text: str) -> float:
    raise ValueError("it holds a number out of range, or a lone surrogate")


def _check_sizes(schema: object) -> None:
    """Refuse a schema that would compile for seconds. Counts every value, data under `const` and `default` included."""
    counts, steps = dict.fromkeys(_MAX_COUNTS, 0), list[int | float]()
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
            if _is_number(step := value.get("multipleOf")):
                steps.append(step)
    for keyword, most in _MAX_COUNTS.items():
        if counts[keyword] > most:
            raise ValueError(f"it has {counts[keyword]} {keyword}, and {most} are the most")
    check_multiples(steps, _MAX_MULTIPLE)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rewritten(schema: Any, at: str, pointers: set[str], references: list[str]) -> Any:
    """A schema and all schemas in it, rewritten; their pointers, and the references they make, are noted."""
    pointers.add(at)
    if not isinstance(schema, dict):
        return schema  # a boolean; the library says what is wrong with anything else
    if isinstance(schema.get("$ref"), str):
        references.append(schema["$ref"])
    for keyword in ("const", "enum"):
        check_constant(schema.get(keyword))

    def inner(held: Any, *path: object) -> Any:
        return _rewritten(held, "/".join([at, *map(str, path)]), pointers, references)

    new = dict(schema)
    for keyword in _MAPS:
        if isinstance(held := schema.get(keyword), dict):
            new[keyword] = {name: inner(s, keyword, _escaped(name)) for name, s in held.items()}
    for keyword in _LISTS:
        if isinstance(held := schema.get(keyword), list):
            new[keyword] = [inner(s, keyword, i) for i, s in enumerate(held)]
    for keyword in _ONES:
        if keyword in schema and not isinstance(schema[keyword], list):
            new[keyword] = inner(schema[keyword], keyword)
    if "prefixItems" in schema and ("additionalItems" in schema or isinstance(schema.get("items"), list)):
        raise ValueError("prefixItems cannot stand beside additionalItems or a list of items")
    _object(new)
    _number(new)
    _format(new)
    return new


def _object(schema: dict[str, Any]) -> None:
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
        if held is not False and len(found := names([pattern], [])) < ENOUGH_NAMES:
            raise ValueError(
                f"patternProperties {pattern[:60]!r} means {len(found)} names only: declare them under properties"
            )
    if schema.get("additionalProperties", True) is False:
        return
    others = names([], list(patterns))
    if not others:
        schema["additionalProperties"] = False
    elif len(others) < ENOUGH_NAMES:
        raise ValueError("patternProperties leave very few other names: set additionalProperties to false")


def _number(schema: dict[str, Any]) -> None:
    """Move bounds to numbers that can be kept; give `int32` and `int64` their range."""
    for keyword, move in (("minimum", lowest), ("maximum", highest)):
        for key in (keyword, f"exclusive{keyword.capitalize()}"):
            value, kinds = schema.get(key), schema.get("type")
            if type(value) is not int or abs(value) <= 1 << 53:
                continue
            moved = move(value if key == keyword else value + (1 if keyword == "minimum" else -1))
            if kinds != "integer" and "number" in (kinds if isinstance(kinds, list) else [kinds, "number"]):
                raise ValueError(f"the {key} {value} is larger than can be kept exactly; give type integer")
            del schema[key]
            _tighten(schema, keyword, moved)
    span, kinds = _RANGES.get(str(schema.get("format"))), schema.get("type")
    if span and "integer" in (kinds if isinstance(kinds, list) else [kinds]):
        _tighten(schema, "minimum", lowest(span[0]))
        _tighten(schema, "maximum", highest(span[1]))


def _tighten(schema: dict[str, Any], keyword: str, bound: float) -> None:
    if _is_number(old := schema.get(keyword)):
        bound = max(old, bound) if keyword == "minimum" else min(old, bound)
    schema[keyword] = bound


def _format(schema: dict[str, Any]) -> None:
    """Drop formats that are not enforced; turn dates and times into patterns."""
    name = schema.get("format")
    if not isinstance(name, str) or name in _ENFORCED:
        return
    del schema["format"]
    pattern = _PATTERNS.get(name)
    if pattern and "pattern" in schema:
        schema["allOf"] = [*schema.get("allOf", []), {"pattern": pattern}]
    elif pattern:
        schema["pattern"] = pattern


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
