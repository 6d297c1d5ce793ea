"""Names of tokens in texts, against a search that looks at every place."""

import random
from collections.abc import Sequence

from model.text.names import Names
from model.text.text_files import AddedToken

TOKENS = [
    AddedToken(1, "<s>"),
    AddedToken(2, "<s>>"),
    AddedToken(3, "[a]", lstrip=True),
    AddedToken(4, "a]b", rstrip=True),
    AddedToken(5, "word", single_word=True),
    AddedToken(6, "wo"),
    AddedToken(7, "#"),
]
ALPHABET = ["<s>", "<s", ">", "[a]", "a]b", "[", "word", "wo", "x", " ", "\n", "#", "_", "é"]


def slowly(tokens: Sequence[AddedToken], text: str) -> list[str | AddedToken]:
    """The longest token at the first place that has one, and so on behind it."""
    parts: list[str | AddedToken] = []
    held, at = "", 0
    while at < len(text):
        here = [t for t in tokens if text.startswith(t.text, at)]
        here = [t for t in here if not t.single_word or not _touched(text, at, at + len(t.text))]
        if not here:
            held, at = held + text[at], at + 1
            continue
        token = max(here, key=lambda t: len(t.text))
        held = held.rstrip() if token.lstrip else held
        parts += [held, token] if held else [token]
        held, at = "", at + len(token.text)
        while token.rstrip and at < len(text) and text[at].isspace():
            at += 1
    return [*parts, held] if held else parts


def _touched(text: str, begin: int, end: int) -> bool:
    return any(c.isalnum() or c == "_" for c in (text[max(0, begin - 1) : begin], text[end : end + 1]) if c)


def test_names_are_found_as_by_looking_at_every_place() -> None:
    rng, names = random.Random(2), Names(TOKENS)
    for _ in range(3000):
        text = "".join(rng.choices(ALPHABET, k=rng.randrange(12)))
        assert list(names.parts(text)) == slowly(TOKENS, text), repr(text)


def test_places_may_overlap() -> None:
    assert [(at, token.id) for at, token in Names(TOKENS).places("[a]b<s>>")] == [(0, 3), (1, 4), (4, 2)]


def test_without_tokens_a_text_is_one_part() -> None:
    assert list(Names([]).parts("a <s>")) == ["a <s>"]
    assert list(Names(TOKENS).parts("")) == []
