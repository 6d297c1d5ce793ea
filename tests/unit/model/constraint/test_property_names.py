"""How many names patterns mean: few are found one by one, of many it is enough that they are many."""

import pytest

from model.constraint.property_names import ENOUGH_NAMES, names


@pytest.mark.parametrize(
    ("inside", "found"),
    [
        (["^score$"], {"score"}),
        (["^(a|b)c|d$"], {"ac", "bc", "d"}),
        (["^a/b$"], {"a/b"}),
        (["^x[0-2]?$"], {"x", "x0", "x1", "x2"}),
    ],
)
def test_few_names_are_all_found(inside: list[str], found: set[str]) -> None:
    assert names(inside, []) == found


@pytest.mark.parametrize("pattern", ["a", "^x_", r"^\d+$", "^[0-9]{60}[ab]$", "", "é"])
def test_many_are_many(pattern: str) -> None:
    assert len(names([pattern], [])) >= ENOUGH_NAMES


def test_what_patterns_leave() -> None:
    assert names([], [".*"]) == set()
    assert names([], ["^.", "\n"]) == {""}
    assert len(names([], ["^a"])) >= ENOUGH_NAMES


def test_a_pattern_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="patternProperties"):
        names(["("], [])
