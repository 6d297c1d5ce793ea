"""What may be sampled next: ends, control and padding ids, blanks, wrong ids; and how regexes are read."""

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from model.batch import Constraint, ConstraintKind
from model.constraint.grammar import Constraints, Matcher
from model.text.tokenizer import Tokenizer

VOCABULARIES = {
    "mixtral": Path(str(files("mistral_common"))) / "data" / "tokenizer.model.v1",
    "demo": Path(__file__).parents[4] / "model" / "demo" / "tokenizer.model",
}
PADDING = 64  # the model's vocabulary is larger than the tokenizer's


@cache
def load(name: str) -> Tokenizer:
    return Tokenizer.load(VOCABULARIES[name])


@cache
def constraints(name: str) -> Constraints:
    """Made for two end-of-sequence ids, one of which lies beyond the tokenizer's vocabulary."""
    return Constraints(load(name), load(name).vocab_size + PADDING, ends(name))


def ends(name: str) -> list[int]:
    return [load(name).eos_id, load(name).vocab_size + 3]


def schema(value: object) -> Constraint:
    return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(value))


def regex(text: str) -> Constraint:
    return Constraint(ConstraintKind.REGEX, text)


def spell(name: str, text: str) -> list[int]:
    """The text as byte pieces."""
    first = next(i for i in range(load(name).vocab_size) if load(name).token_bytes(i) == b"\0")
    return [first + byte for byte in text.encode()]


def follow(name: str, constraint: Constraint, text: str) -> Matcher:
    matcher = constraints(name).matcher(constraint)
    for token_id in spell(name, text):
        matcher.push(token_id)
    return matcher


def fits(name: str, constraint: Constraint, text: str) -> bool:
    matcher = follow(name, constraint, text)
    return bool(matcher.allowed()[ends(name)].all()) and not matcher.failure


def test_every_allowed_id_keeps_the_text_within_the_constraint_and_no_other_does() -> None:
    """Over the whole vocabulary, against Python: after `prefix`, a piece is allowed if a match can go on with it."""
    demo = load("demo")
    for wanted, prefix, longer in (
        ("[a-c ]{0,9}!", "ab", r"[a-c ]{0,7}!?"),
        ("the (cat|cow)s", "the c", "(a(ts?)?|o(ws?)?)"),
    ):
        allowed = follow("demo", regex(wanted), prefix).allowed()
        for token_id in range(demo.vocab_size):
            piece = demo.token_bytes(token_id).decode(errors="replace")
            good = piece != "" and token_id != demo.unk_id and re.fullmatch(longer, piece)
            assert allowed[token_id] == bool(good), (prefix, piece)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_complete_text_can_only_end_and_an_ended_one_stays_ended(name: str) -> None:
    for end in ends(name):
        matcher = follow(name, regex("ab"), "ab")
        for _ in range(3):
            assert np.flatnonzero(matcher.allowed()).tolist() == ends(name)
            matcher.push(end)
        matcher.push(5)
        assert np.flatnonzero(matcher.allowed()).tolist() == ends(name)
        assert matcher.failure == ""


def test_a_text_that_may_end_or_go_on_allows_both() -> None:
    allowed = follow("demo", regex("ab?"), "a").allowed()
    pieces = {load("demo").token_bytes(int(i)) for i in np.flatnonzero(allowed) if i not in ends("demo")}
    assert pieces == {b"b"}
    assert allowed[ends("demo")].all()
    assert not follow("demo", regex("ab"), "a").allowed()[ends("demo")].any()


@pytest.mark.parametrize("name", VOCABULARIES)
def test_control_unknown_and_padding_ids_are_never_part_of_a_text(name: str) -> None:
    tokenizer = load(name)
    for constraint in (regex("(?s).*"), schema(True)):
        allowed = constraints(name).matcher(constraint).allowed()
        assert not allowed[[tokenizer.bos_id, tokenizer.unk_id]].any()
        beyond = set(np.flatnonzero(allowed[tokenizer.vocab_size :]) + tokenizer.vocab_size)
        assert beyond <= set(ends(name))
    everything = constraints(name).matcher(regex("(?s).*")).allowed()
    whole = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) and i != tokenizer.unk_id]
    utf8 = [i for i in whole if tokenizer.token_bytes(i) < b"\x80"]
    assert everything[utf8].all(), "any text may go on with any piece"


def test_an_ordinary_piece_that_ends_the_sequence_is_no_text() -> None:
    demo = load("demo")
    (end,) = spell("demo", "b")
    matcher = Constraints(demo, demo.vocab_size, [end]).matcher(regex("[ab]{2}"))
    assert not matcher.allowed()[end]
    for token_id in spell("demo", "aa"):
        matcher.push(token_id)
    assert np.flatnonzero(matcher.allowed()).tolist() == [end]


def test_without_end_ids_the_tokenizers_own_ends_a_text() -> None:
    matcher = Constraints(load("demo"), load("demo").vocab_size, []).matcher(regex("a?"))
    assert matcher.allowed()[load("demo").eos_id]


def test_characters_may_be_written_byte_by_byte_but_only_whole_ones() -> None:
    assert fits("mixtral", schema({"type": "string"}), '"é👍"')
    assert fits("mixtral", regex(".{2}"), "é👍")
    broken = constraints("mixtral").matcher(regex(".*"))
    broken.push(spell("mixtral", "é")[0])
    pieces = [load("mixtral").token_bytes(int(i)) for i in np.flatnonzero(broken.allowed())]
    assert pieces
    assert all(0x80 <= piece[0] < 0xC0 for piece in pieces), "the character is finished first"


@pytest.mark.parametrize("text", ['{"a": [1, 2]}', '{"a":[1,2]}', '{\n    "a": [\n        1,\n        2\n    ]\n}'])
def test_json_may_be_compact_spaced_or_indented(text: str) -> None:
    assert fits("demo", schema(True), text)


@pytest.mark.parametrize("text", [" {}", "{} ", "{\n\n}", "{  }", "[1\t]"])
def test_json_has_no_other_space(text: str) -> None:
    assert not fits("demo", schema(True), text)


@pytest.mark.parametrize("token_id", [0, 1, 400, 2048 + 9, 10**6, -1])
def test_an_id_that_was_not_allowed_ends_the_text_and_raises_nothing(token_id: int) -> None:
    matcher = follow("demo", regex("!{3}"), "!")
    matcher.push(token_id)
    assert matcher.failure
    matcher.push(token_id)
    assert np.flatnonzero(matcher.allowed()).tolist() == ends("demo")


def test_the_mask_belongs_to_the_caller() -> None:
    matcher = constraints("demo").matcher(regex("a"))
    before = matcher.allowed()
    before[:] = True
    assert not matcher.allowed().all()
    assert before.flags.c_contiguous


def test_regexes_are_rusts_and_differ_from_pythons_here_and_there() -> None:
    assert fits("demo", regex(r"\p{Greek}+"), "αβ"), "Python's re has no such classes"
    assert fits("demo", regex("[a&&[^b]]"), "a"), "Rust intersects classes"
    assert not fits("demo", regex("[a-z&&[^b]]"), "b")
    assert not fits("demo", regex("a$"), "a\n"), "Python's $ may stand before a last newline"
    assert fits("demo", regex(r"(?<year>[0-9]{4})"), "1999"), "Python writes ?P<year>"


def test_a_place_with_no_way_on_is_a_failure_and_not_an_end() -> None:
    """A name was written twice, as no model is allowed to; and one that can only come twice."""
    matcher = follow("demo", schema({"type": "object"}), '{"a":1,"a"')
    assert matcher.failure
    early = follow("demo", regex("ab"), "a")
    early.push(load("demo").eos_id)
    assert early.failure == "it was ended before it was a whole text"


def test_the_overlap_of_properties_and_patterns_is_refused() -> None:
    """It ended with STOP behind a comma: `{ "score": 100, "ok":false ,`."""
    wanted = {
        "type": "object",
        "properties": {"score": {"type": "integer"}, "ok": {"type": "boolean"}},
        "required": ["score", "ok"],
        "additionalProperties": False,
        "patternProperties": {"^score$": {"type": "integer"}},
    }
    with pytest.raises(ValueError, match="declare them under properties"):
        constraints("demo").check(schema(wanted))


def test_an_additional_name_comes_once_and_never_as_a_declared_one_in_disguise() -> None:
    wanted = schema(
        {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "null"}}
    )
    assert fits("demo", wanted, '{"a":1,"b":null,"c":null}')
    for text in ('{"b":null,"b":null}', '{"\\u0061":null}', '{"a":1,"a":null}'):
        assert not fits("demo", wanted, text), text


def test_a_schema_that_costs_too_much_is_refused_without_being_compiled_here() -> None:
    wanted = schema({"allOf": [{"type": "string", "pattern": f"[a-z]{i}x"} for i in range(20)]})
    with pytest.raises(ValueError, match="too much memory, to compile"):
        constraints("demo").check(wanted)


def test_times_are_those_of_rfc_3339() -> None:
    wanted = schema({"type": "string", "format": "time"})
    for text, good in (("12:30:59Z", True), ("12:30:59.25+01:00", True), ("12:30:59", False), ("24:00:00Z", False)):
        assert fits("demo", wanted, f'"{text}"') == good
    assert fits("demo", schema({"format": "date", "type": "string"}), '"2024-02-29"')
    assert not fits("demo", schema({"format": "date", "type": "string"}), '"2023-02-29"')
