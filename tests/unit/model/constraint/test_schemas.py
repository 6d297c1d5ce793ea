"""Schemas by lot: each is refused, or whatever ends under it is valid, as a validator that is not the generator's says.

EIGHTWINDS_SCHEMAS sets how many (2,000: the full run, some minutes).
"""

import json
import os
import re
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest

from model.batch import Constraint, ConstraintKind
from model.constraint.grammar import Constraints, Matcher
from model.text.detokenizer import Detokenizer
from model.text.tokenizer import Tokenizer
from tests.schemas import Lot

COUNT = int(os.environ.get("EIGHTWINDS_SCHEMAS", "150"))
LISTED = {"date", "time", "date-time", "email", "ipv4", "ipv6", "uuid"}


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    assert len(dict(pairs)) == len(pairs), f"a name comes twice: {[name for name, _ in pairs]}"
    return dict(pairs)


def number(text: str) -> Fraction | int:
    """Exact; 1.0 is an integer to JSON Schema, and a fraction is none to the validator."""
    digits, _, exponent = text.lower().partition("e")
    places = max(-999, min(999, int(exponent or 0)))  # JSON has no limit, and no bound in a schema reaches so far
    value = Fraction(digits) * Fraction(10) ** places
    return int(value) if value.denominator == 1 else value


def exact(text: str) -> Any:
    return json.loads(text, parse_float=number, object_pairs_hook=unique)


class Formats(jsonschema.FormatChecker):  # type: ignore[misc]
    """What is enforced of formats; RFC 3339 for times, of which the library's own check needs another package."""

    def check(self, instance: object, format: str) -> None:
        if not isinstance(instance, str) or format not in LISTED:
            return
        date, _, time = instance.partition("T") if format == "date-time" else (instance, "", instance)
        if format in ("date", "date-time"):
            super().check(date, "date")
        if format in ("time", "date-time"):
            good = re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", time)
            assert good, f"{time} is no time of RFC 3339"
        elif format != "date":
            super().check(instance, format)


@cache
def demo() -> Tokenizer:
    return Tokenizer.load(Path(__file__).parents[4] / "model" / "demo" / "tokenizer.model")


@cache
def constraints() -> Constraints:
    return Constraints(demo(), demo().vocab_size, [demo().eos_id])


def written(matcher: Matcher, seed: int, most: int = 300) -> str | None:
    """What a random model writes, or None if it does not end, or fails. Ends are likely."""
    rng, ids = np.random.default_rng(seed), list[int]()
    ends = [demo().eos_id, *demo().encode('"', bos=False), *demo().encode('"}]', bos=False)]
    while len(ids) < most:
        allowed = matcher.allowed()
        if matcher.failure:
            return None
        scores = rng.normal(size=allowed.shape)
        scores[ends] += 4 * (len(ids) > 10 + seed * 8)
        ids.append(int(np.where(allowed, scores, -np.inf).argmax()))
        matcher.push(ids[-1])
        if ids[-1] == demo().eos_id:
            stream = Detokenizer(demo())
            return "".join(stream.push(i) for i in ids) + stream.flush()
    return None


def test_what_ends_is_valid_and_what_cannot_be_promised_is_refused() -> None:
    refused = failed = finished = accepted = 0
    for seed in range(COUNT):
        schema = Lot(seed).schema()
        text = json.dumps(schema, ensure_ascii=seed % 2 == 0)
        constraint = Constraint(ConstraintKind.JSON_SCHEMA, text)
        try:
            constraints().check(constraint)
        except ValueError as refusal:
            refused += 1
            assert str(refusal).startswith("The JSON schema cannot be used: ")
            continue
        accepted += 1
        validator = jsonschema.Draft202012Validator(exact(text), format_checker=Formats())
        for attempt in range(5):
            matcher = constraints().matcher(constraint)
            output = written(matcher, attempt)
            failed += bool(matcher.failure)
            if output is None or matcher.failure:
                continue
            finished += 1
            try:
                validator.validate(exact(output))
            except (jsonschema.ValidationError, AssertionError) as error:
                pytest.fail(f"{seed}: {text} allowed {output}: {str(error)[:300]}")
    print(f"{COUNT} schemas: {accepted} accepted, {refused} refused; {finished} outputs valid, {failed} failed")
    assert accepted > COUNT / 3
    assert finished > 2 * accepted
    assert failed < accepted / 20, "a failure is honest, but it is no answer"
