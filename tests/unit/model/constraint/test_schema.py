"""What a JSON schema is turned into, and what of it is refused because it could not be followed to the letter."""

import json
from typing import Any

import pytest

from model.constraint.schema import read


def of(schema: Any) -> Any:
    return read(json.dumps(schema))


@pytest.mark.parametrize("number", [1152921504606846977, -(2**53) - 1, 2**63 - 1, 2**70])
@pytest.mark.parametrize("place", [lambda n: {"const": n}, lambda n: {"enum": [1, n]}, lambda n: {"const": [{"a": n}]}])
def test_a_number_that_would_come_out_as_another_is_refused(place: Any, number: int) -> None:
    with pytest.raises(ValueError, match="more digits"):
        of(place(number))


def test_a_number_with_too_many_digits_after_the_point_is_refused() -> None:
    with pytest.raises(ValueError, match="more digits"):
        read('{"const": 0.30000000000000000001}')


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**60, 0, 0.1, -7.25])
def test_a_number_that_is_kept_is_accepted(number: float) -> None:
    assert of({"const": number}) == {"const": number}


def test_a_bound_of_integers_is_moved_inwards_to_one_that_is_kept() -> None:
    assert of({"type": "integer", "minimum": 2**53 + 1}) == {"type": "integer", "minimum": 2**53 + 2}
    assert of({"type": "integer", "maximum": 2**53 + 1}) == {"type": "integer", "maximum": 2**53}
    assert of({"type": "integer", "exclusiveMinimum": 2**53 + 1})["minimum"] == 2**53 + 2
    assert of({"type": "integer", "maximum": 2**70})["maximum"] == 2**63 - 1024


@pytest.mark.parametrize("schema", [{"type": "integer", "minimum": 2**63}, {"type": "number", "minimum": 2**53 + 1}])
def test_a_bound_beyond_what_can_be_kept_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match="larger than can be kept"):
        of(schema)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("int32", -(2**31), 2**31 - 1), ("int64", 1024 - 2**63, 2**63 - 1024)]
)
def test_formats_of_integers_are_their_ranges(kind: str, low: int, high: int) -> None:
    found = of({"type": ["integer", "null"], "format": kind, "minimum": low - 5})
    assert found == {"type": ["integer", "null"], "minimum": low, "maximum": high}
    assert of({"type": "string", "format": kind}) == {"type": "string"}


@pytest.mark.parametrize(
    "name", ["binary", "byte", "password", "uri-reference", "json-pointer", "regex", "iri", "mine"]
)
def test_unknown_formats_are_annotations(name: str) -> None:
    assert of({"type": "string", "format": name}) == {"type": "string"}


def test_a_format_and_a_pattern_must_both_fit() -> None:
    found = of({"type": "string", "format": "date", "pattern": "^19"})
    assert found["pattern"] == "^19" and "02-29" in found["allOf"][0]["pattern"]


@pytest.mark.parametrize("step", [0.07, 1 << 40, 0, -2])
def test_a_step_that_is_not_followed_exactly_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match="multipleOf"):
        of({"multipleOf": step})


@pytest.mark.parametrize("pattern", ["^score$", "^(a|b)$", "^[a-z]$"])
def test_a_pattern_that_means_few_names_is_refused(pattern: str) -> None:
    """After all of them there could come a comma, and then nothing."""
    with pytest.raises(ValueError, match="declare them under properties"):
        of({"properties": {"score": True}, "patternProperties": {pattern: True}})


def test_patterns_that_leave_no_other_name_close_the_object() -> None:
    assert of({"patternProperties": {".*": {"type": "null"}}})["additionalProperties"] is False
    assert "additionalProperties" not in of({"patternProperties": {"^x": {"type": "null"}}})


@pytest.mark.parametrize("pointer", ["#/default", "#/properties", "#/const/a", "#/$defs/no"])
def test_a_reference_leads_to_a_schema(pointer: str) -> None:
    with pytest.raises(ValueError, match="does not have"):
        of({"properties": {"a": {"$ref": pointer}}, "default": {"const": 2**53 + 1}})
    assert of({"$defs": {"a/b~": True}, "$ref": "#/$defs/a~1b~0"})


def test_what_two_drafts_read_in_different_ways_is_refused() -> None:
    with pytest.raises(ValueError, match="prefixItems"):
        of({"prefixItems": [{"const": 1}], "additionalItems": False})
