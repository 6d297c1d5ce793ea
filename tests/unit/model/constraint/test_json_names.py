"""Names of a JSON text: each comes once in its object, in one spelling."""

import json

import numpy as np
import pytest

from model.constraint.json_names import Pieces, Place, advance


def accepted(text: str) -> bool:
    """The same in pieces of any length."""
    answers = set()
    for size in (1, 2, 3, 100):
        place: Place | None = Place()
        data = text.encode()
        for begin in range(0, len(data), size):
            place = advance(place, data[begin : begin + size]) if place is not None else None
        answers.add(place is not None)
    (answer,) = answers
    return answer


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": {"a": "a", "b": ["a", "a", {"a": 0}]}, "c": "\\u0061", "é\\"": "b,{"}',
        '[{"a": 1}, {"a": 2}]',
        '{"\\n": 1, "\\\\": 2, "": {}, "x": {}}',
        '"{\\"a\\": 1, \\"a\\""',
    ],
)
def test_names_that_differ_are_accepted(text: str) -> None:
    assert accepted(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a"',
        '{"b": {"a": 1}, "a": [1, {}], "b"',
        '[{"": 1,"": 2}]',
        '{"\\u0061": 1',
        '{"a\\/": 1',
        '{"x":{},"x"',
    ],
)
def test_names_that_come_twice_or_in_disguise_are_not(text: str) -> None:
    assert not accepted(text)


def test_the_place_after_pieces_is_that_after_the_whole() -> None:
    text = json.dumps({"a": [1, {"b": '\\"x'}], "c": {"d": None}}).encode()
    whole = advance(Place(), text)
    for cut in range(len(text)):
        first = advance(Place(), text[:cut])
        assert first is not None and advance(first, text[cut:]) == whole


def test_only_pieces_that_would_repeat_a_name_are_forbidden() -> None:
    pieces = Pieces([b'"', b'a"', b"a", b'", "a', b'": 1, "a"', b"\\", b"u", b"", b'b", "a"', b'""', b'"a":'])
    inside = advance(Place(), b'{"a": 1, "')
    assert inside is not None
    mask = np.ones(11, np.bool_)
    pieces.forbid(inside, mask)
    assert [pieces.all[i] for i in np.flatnonzero(~mask)] == [b'a"', b'": 1, "a"', b'b", "a"']
    before = advance(Place(), b'{"a": 1, ')
    assert before is not None
    mask = np.ones(11, np.bool_)
    pieces.forbid(before, mask)
    assert [pieces.all[i] for i in np.flatnonzero(~mask)] == [b'"a":']
