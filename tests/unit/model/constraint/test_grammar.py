"""Any model at all, held to a constraint, writes a text that fits it; two vocabularies, through the real decoder."""

import json
import random
import re
import threading
from functools import cache
from importlib.resources import files
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import Constraint, ConstraintKind
from model.constraint.grammar import Constraints, Matcher
from model.text.detokenizer import Detokenizer
from model.text.tokenizer import Tokenizer

VOCABULARIES = {
    "mixtral": Path(str(files("mistral_common"))) / "data" / "tokenizer.model.v1",
    "demo": Path(__file__).parents[4] / "model" / "demo" / "tokenizer.model",
}
PADDING = 64  # the model's vocabulary is larger than the tokenizer's
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b é", 3, None]}, "minItems": 1, "maxItems": 3},
        "home": {"type": "object", "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMAS: list[object] = [
    PERSON,
    {"type": "array", "items": PERSON, "maxItems": 2},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"type": "number", "minimum": -3, "exclusiveMaximum": 7.5},
    {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 1000},
    {"type": "string", "minLength": 3, "maxLength": 9},
    {"anyOf": [{"type": "null"}, {"type": "string", "format": "date"}, {"const": {"k": [1, "x"]}}]},
    {"allOf": [{"type": "integer", "minimum": 5}, {"maximum": 8}]},
    {"type": "array", "prefixItems": [{"type": "null"}, {"const": "ü/👍"}], "items": False, "minItems": 2},
    {"$ref": "#/$defs/list", "$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}, "maxItems": 2}}},
    {"type": "object", "patternProperties": {"^x_[a-z]{1,3}$": {"type": "null"}}, "additionalProperties": False},
]  # fmt: skip
# What Rust and Python read alike.
REGEXES = ["a", "abc", " leading", "(yes|no)", "[0-9]{3}-[0-9]{4}", "(a|b)*c?", "a{0,5}", "a+b+", "x?", "日本(語|人)+"]
REGEXES += [
    r"[^a-z\n]{2,8}",
    r"\$[0-9]+\.[0-9]{2}",
    r"a/b\/c[/\\]{2}",
    "(a*)*b",
    "^anchored$",
    "one\ntwo",
    "(?i)mixed",
    "é{1,3}",
]
REGEXES += [
    r"[a-f]{2}(-[a-f]{2}){5}",
    ".{5}",
    r"(?s).{3,6}",
    r"https?://[a-z]{1,9}\.(com|org)(/[a-z]{1,4}){0,2}",
    " {2,9}!",
]
REGEXES += ["(?x) a b # said\n c", "[\U0001f300-\U0001f5ff]{2}", "\x00+", "(?:a?){9}a{9}"]


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


def write(name: str, matcher: Matcher, seed: int, most: int = 400) -> list[int]:
    """A random model: logits for every id, the best allowed one wins. Ends are likely, or strings would not end."""
    noise, ids = np.random.default_rng(seed), list[int]()
    favoured = [*ends(name), *load(name).encode('"', bos=False), *load(name).encode('"}]', bos=False)]
    while len(ids) < most and not (ids and ids[-1] in ends(name)):
        allowed = matcher.allowed()
        assert allowed.shape == (load(name).vocab_size + PADDING,)
        assert allowed.dtype == np.bool_
        logits = noise.normal(size=allowed.shape)
        logits[favoured] += 3 * (len(ids) > 6)
        ids.append(int(np.where(allowed, logits, -np.inf).argmax()))
        matcher.push(ids[-1])
        assert matcher.failure == ""
    return ids


def text_of(name: str, ids: list[int]) -> str:
    """What a client sees."""
    stream = Detokenizer(load(name))
    return "".join(stream.push(i) for i in ids if i < load(name).vocab_size) + stream.flush()


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


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("wanted", SCHEMAS, ids=lambda wanted: str(wanted)[:40])
def test_random_models_write_json_that_the_schema_allows(name: str, wanted: dict[str, object]) -> None:
    constraints(name).check(schema(wanted))
    finished = 0
    for seed in range(15):
        ids = write(name, constraints(name).matcher(schema(wanted)), seed)
        if ids[-1] in ends(name):
            finished += 1
            jsonschema.validate(json.loads(text_of(name, ids)), wanted, format_checker=jsonschema.FormatChecker())
    assert finished >= 12, "most texts are done within 400 tokens"


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("wanted", REGEXES)
def test_random_models_write_text_that_the_regex_matches_as_a_whole(name: str, wanted: str) -> None:
    constraints(name).check(regex(wanted))
    for seed in range(15):
        ids = write(name, constraints(name).matcher(regex(wanted)), seed)
        assert ids[-1] in ends(name)
        assert re.fullmatch(wanted, text_of(name, ids)), text_of(name, ids)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(value=st.recursive(st.none() | st.booleans() | st.text(max_size=6), lambda inner: st.lists(inner, max_size=3)))
def test_any_constant_is_written_as_it_is(value: object) -> None:
    ids = write("demo", constraints("demo").matcher(schema({"const": value})), seed=1, most=2000)
    assert json.loads(text_of("demo", ids)) == value


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(text=st.text(alphabet="ab/\\.\n é", min_size=1, max_size=8))
def test_a_regex_with_slashes_and_backslashes_means_what_it_means_elsewhere(text: str) -> None:
    matches = text.replace("\n", "/")
    assert fits("demo", regex(re.escape(matches).replace("/", r"\/")), matches)
    assert fits("demo", regex(re.escape(matches).replace(r"\ ", " ")), matches)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_resumed_sequence_goes_on_as_if_it_had_not_stopped(name: str) -> None:
    ids = write(name, constraints(name).matcher(schema(PERSON)), seed=3)
    for cut in range(0, len(ids) + 1, 3):
        whole, resumed = (constraints(name).matcher(schema(PERSON)) for _ in range(2))
        for token_id in ids[:cut]:
            whole.allowed()  # asked for at every step, and never
            whole.push(token_id)
            resumed.push(token_id)
        assert (whole.allowed() == resumed.allowed()).all()


@pytest.mark.parametrize(("length", "good"), [(29, False), (30, True), (60, True), (61, False)])
def test_an_ambiguous_regex_is_no_trouble(length: int, good: bool) -> None:
    """Backtracking, as in Python's `re`, would take minutes."""
    assert fits("demo", regex("(?:a?){30}a{30}"), "a" * length) == good


def test_an_output_that_is_cut_off_is_the_beginning_of_one_that_fits() -> None:
    ids = write("demo", constraints("demo").matcher(regex("(ab){50}")), seed=0, most=7)
    assert text_of("demo", ids) != "ab" * 50
    assert ("ab" * 50).startswith(text_of("demo", ids))


def test_a_model_that_loves_blanks_still_finishes() -> None:
    demo, matcher, ids = load("demo"), constraints("demo").matcher(schema(PERSON)), list[int]()
    rng = random.Random(4)
    while not (ids and ids[-1] in ends("demo")):
        allowed = [int(i) for i in np.flatnonzero(matcher.allowed())]
        blank = [i for i in allowed if i < demo.vocab_size and demo.token_bytes(i) and not demo.token_bytes(i).strip()]
        outside = text_of("demo", ids).count('"') % 2 == 0
        ids.append(max(blank, key=lambda i: len(demo.token_bytes(i))) if blank and outside else rng.choice(allowed))
        matcher.push(ids[-1])
        assert len(ids) < 1000
    runs = re.findall(r"\s+", re.sub(r'"[^"]*"', '""', text_of("demo", ids)))
    assert runs
    assert max(map(len, runs)) <= 33


def test_matchers_of_one_constraint_do_not_disturb_each_other_even_in_threads() -> None:
    expected = [write("demo", constraints("demo").matcher(schema(PERSON)), seed) for seed in range(8)]
    found: dict[int, list[int]] = {}

    def run(seed: int) -> None:
        found[seed] = write("demo", constraints("demo").matcher(schema(PERSON)), seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(8)] == expected
