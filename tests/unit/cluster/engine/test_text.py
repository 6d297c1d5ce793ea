"""Text from tokens, piece by piece, and the stop strings in it."""

import itertools
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.engine.events import Finish, FinishReason, Sampled
from cluster.engine.served_model import DEMO_FOLDER
from cluster.engine.text import OutputText, Piece, StopRules
from model.batch import SampledToken
from model.text.detokenizer import Detokenizer
from model.text.tokenizer import Tokenizer
from tests.engines import output_text

LENGTH = Finish(FinishReason.LENGTH)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(DEMO_FOLDER)


@cache
def by_bytes() -> dict[bytes, int]:
    """Ids by what they stand for."""
    return {tokenizer().token_bytes(i): i for i in range(tokenizer().vocab_size)}


def ids_of(*pieces: str) -> list[int]:
    """Ids of texts; one that is no piece of the vocabulary becomes its bytes."""
    ids = []
    for text in pieces:
        data = text.encode()
        ids += [by_bytes()[data]] if data in by_bytes() else [by_bytes()[bytes([byte])] for byte in data]
    return ids


def pieces_of(
    ids: list[int], rules: StopRules, last: Finish | None = LENGTH, special_tokens: bool = False
) -> list[Piece]:
    """What is given out for these tokens, up to the piece that ends the output."""
    text = OutputText(Detokenizer(tokenizer(), special_tokens=special_tokens), rules)
    pieces = []
    for i, token in enumerate(ids):
        pieces.append(text.push(Sampled("a", SampledToken(0, token), last if i == len(ids) - 1 else None)))
        if pieces[-1].finish is not None:
            break
    return pieces


def joined(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def cut(ids: list[int], stops: list[str], include: bool) -> tuple[str, str | None]:
    """The specification: the output ends with the token that completes a stop string; it is cut where the earliest
    one begins, the longest of those that begin there.
    """
    decoder, text = Detokenizer(tokenizer()), ""
    for i, token in enumerate(ids):
        text += decoder.push(token)
        text += decoder.flush() if i == len(ids) - 1 else ""
        found = sorted((text.index(stop), -len(stop), stop) for stop in stops if stop in text)
        if found:
            begin, _, stop = found[0]
            return text[: begin + len(stop) * include], stop
    return text, None


# Few letters, so that stop strings are met, begun in vain, and overlap.
LETTERS = st.text(st.sampled_from("ab é\u2047"), min_size=1, max_size=5)
ANY_IDS = st.deferred(lambda: st.lists(st.integers(0, tokenizer().vocab_size - 1), min_size=1, max_size=30))
IDS = st.lists(LETTERS, min_size=1, max_size=30).map(lambda pieces: ids_of(*pieces)) | ANY_IDS
STOPS = st.lists(LETTERS | st.sampled_from(["the", " ", ".", "\ufffd", "abab", "aab"]), max_size=4)


@settings(max_examples=400, deadline=None)
@given(ids=IDS, stops=STOPS, include=st.booleans())
def test_joined_pieces_are_the_text_cut_at_the_first_stop_string(
    ids: list[int], stops: list[str], include: bool
) -> None:
    pieces = pieces_of(ids, StopRules(tuple(stops), include))
    text, stop = cut(ids, stops, include)
    assert joined(pieces) == text
    assert pieces[-1].finish == (LENGTH if stop is None else Finish(FinishReason.STOP, stop=stop))


@settings(max_examples=200, deadline=None)
@given(ids=IDS, stop=LETTERS, include=st.booleans())
def test_with_one_stop_string_it_is_the_whole_text_cut_at_its_first_place(
    ids: list[int], stop: str, include: bool
) -> None:
    whole = output_text(tokenizer(), ids)
    begin = whole.find(stop)
    expected = whole if begin < 0 else whole[: begin + len(stop) * include]
    assert joined(pieces_of(ids, StopRules((stop,), include))) == expected


@settings(max_examples=200, deadline=None)
@given(ids=IDS, stops=STOPS)
def test_no_more_is_held_back_than_may_begin_a_stop_string(ids: list[int], stops: list[str]) -> None:
    decoder, decoded, given_out = Detokenizer(tokenizer()), "", ""
    for piece in pieces_of([*ids, *ids], StopRules(tuple(stops)), last=None):
        decoded += decoder.push(piece.token.token_id)
        given_out += piece.text
        if piece.finish is None:
            held = decoded.removeprefix(given_out)
            assert len(given_out) + len(held) == len(decoded)
            assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize(
    ("stops", "include", "text", "found"),
    [
        (("User:",), False, "no ", "User:"),
        (("User:",), True, "no User:", "User:"),
        (("er", "User:"), False, "no Us", "er"),  # it was complete before the earlier one
        (("User", "Us"), False, "no ", "Us"),
        (("o ", "no U"), False, "n", "o "),
        (("xyz",), False, "no User: x", None),
    ],
)
def test_stop_strings_over_token_borders(stops: tuple[str, ...], include: bool, text: str, found: str | None) -> None:
    pieces = pieces_of(ids_of("no", " ", "U", "s", "e", "r", ":", " ", "x"), StopRules(stops, include))
    assert joined(pieces) == text
    finish = pieces[-1].finish
    assert finish is not None and finish.stop == found


@pytest.mark.parametrize("stops", [(" t", " the"), (" the", " t")])
def test_of_stop_strings_that_begin_together_the_longest_is_found(stops: tuple[str, ...]) -> None:
    ids = ids_of("no", " the", "x")
    assert len(ids_of(" the")) == 1, "take a word that is one token"
    assert joined(pieces_of(ids, StopRules(stops, include_stop=True))) == "no the"


def test_half_a_character_and_half_a_stop_string_are_held_back() -> None:
    euro = ids_of("\u20ac")
    assert len(euro) == 3, "the sign is in the vocabulary: take another"
    pieces = pieces_of([*euro, *ids_of("x", "y", "z")], StopRules(("xyw",)))
    assert [piece.text for piece in pieces] == ["", "", "\u20ac", "", "", "xyz"]


def test_a_character_cut_by_the_end_becomes_a_replacement_character() -> None:
    assert joined(pieces_of(ids_of("a", "\u20ac")[:-1], StopRules())) == "a\ufffd"


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("special_tokens", [False, True])
def test_the_text_of_a_stop_token_is_left_out_unless_asked_for(include: bool, special_tokens: bool) -> None:
    stop = Finish(FinishReason.STOP, stop_token_id=tokenizer().eos_id)
    pieces = pieces_of([*ids_of("a", "b"), tokenizer().eos_id], StopRules((), include), stop, special_tokens)
    assert joined(pieces) == ("ab</s>" if include and special_tokens else "ab")
    assert pieces[-1].finish == stop
    word = by_bytes()[b"b"]
    ordinary = pieces_of([*ids_of("a"), word], StopRules((), include), Finish(FinishReason.STOP, stop_token_id=word))
    assert joined(ordinary) == ("ab" if include else "a")


def test_what_was_held_back_comes_with_the_stop_token() -> None:
    stop = Finish(FinishReason.STOP, stop_token_id=tokenizer().eos_id)
    pieces = pieces_of([*ids_of("a", "U", "s"), tokenizer().eos_id], StopRules(("User",)), stop)
    assert [piece.text for piece in pieces] == ["a", "", "", "Us"]


@pytest.mark.parametrize(
    ("min_tokens", "text"), [(0, "a"), (1, "a"), (2, "a"), (3, "abca"), (4, "abca"), (6, "abcabc")]
)
def test_stop_strings_count_only_after_min_tokens(min_tokens: int, text: str) -> None:
    """The stop string is complete with the third and the sixth token."""
    assert joined(pieces_of(ids_of(*"abcabc"), StopRules(("bc",), min_tokens=min_tokens))) == text


@pytest.mark.parametrize("special_tokens", [False, True])
def test_ids_of_a_padded_embedding_have_no_text(special_tokens: bool) -> None:
    padding = [tokenizer().vocab_size, tokenizer().vocab_size + 63]
    ids = list(itertools.chain(ids_of("U"), padding, ids_of("s"), padding))
    pieces = pieces_of(ids, StopRules(("User",)), special_tokens=special_tokens)
    assert joined(pieces) == "Us"
    assert [piece.token.token_id for piece in pieces] == ids
