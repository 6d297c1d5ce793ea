"""Ids to text: `Tokenizer.decode`, and the incremental detokenizer against whole outputs, over two vocabularies."""

from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from model.text.detokenizer import Detokenizer
from model.text.tokenizer import Tokenizer

VOCABULARIES = {
    "mixtral": Path(str(files("mistral_common"))) / "data" / "tokenizer.model.v1",
    "demo": Path(__file__).parents[4] / "model" / "demo" / "tokenizer.model",
}


@cache
def load(name: str) -> Tokenizer:
    return Tokenizer.load(VOCABULARIES[name])


def byte_ids(tokenizer: Tokenizer, data: bytes) -> list[int]:
    """Ids of the byte pieces, which lie in one run in both vocabularies."""
    first = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\0")
    return [first + byte for byte in data]


def id_runs(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Any ids at all, among them many byte pieces (whole and broken characters) and control pieces."""
    any_id = st.integers(0, tokenizer.vocab_size - 1).map(lambda i: [i])
    special = st.sampled_from([tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id]).map(lambda i: [i])
    lead_or_tail = st.sampled_from([0x20, 0x41, 0x80, 0xA0, 0xBF, 0xC3, 0xE2, 0xED, 0xF0, 0xF4, 0xFF])
    raw = st.one_of(st.integers(0, 255), lead_or_tail).map(lambda b: byte_ids(tokenizer, bytes([b])))
    character = st.characters(codec="utf-8").map(lambda c: byte_ids(tokenizer, c.encode()))
    runs = st.lists(st.one_of(any_id, special, raw, character), max_size=24)
    return runs.map(lambda parts: [i for part in parts for i in part])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("<s>", b""), ("</s>", b""), ("<0x00>", b"\0"), ("<0xE2>", b"\xe2"), ("<unk>", " ⁇ ".encode())),
        *(("▁", b" "), ("▁▁", b"  "), ("▁the", b" the"), ("s", b"s"), ("▁»", b" \xc2\xbb")),
    ],
)
def test_token_bytes(text: str, expected: bytes) -> None:
    token_id = SentencePieceProcessor(model_file=str(VOCABULARIES["mixtral"])).piece_to_id(text)
    assert load("mixtral").token_bytes(token_id) == expected


@pytest.mark.parametrize("name", VOCABULARIES)
def test_every_single_id_decodes_as_in_sentencepiece(name: str) -> None:
    tokenizer, sentencepiece = load(name), SentencePieceProcessor(model_file=str(VOCABULARIES[name]))
    for token_id in range(tokenizer.vocab_size):
        assert tokenizer.decode([token_id]) == sentencepiece.decode([token_id]), token_id


@pytest.mark.parametrize("token_id", [-1, -32_000, 32_000, 2**31])
def test_ids_outside_the_vocabulary_are_refused(token_id: int) -> None:
    mixtral = load("mixtral")
    for use in (mixtral.token_bytes, lambda i: mixtral.decode([5, i]), Detokenizer(mixtral).push):
        with pytest.raises(ValueError, match=f"Token id {token_id} is not .* use ids from 0 to 31999"):
            use(token_id)


def test_the_demo_vocabulary_gives_texts_back() -> None:
    demo, text = load("demo"), "My favourite condiment is  </s>\n日本 👍"
    assert demo.decode(demo.encode(text)) == text
    assert {demo.bos_id, demo.eos_id, demo.unk_id}.isdisjoint(demo.encode(text, bos=False))


def streamed(name: str, ids: list[int], special_tokens: bool = False) -> str:
    stream = Detokenizer(load(name), special_tokens=special_tokens)
    return "".join([stream.push(i) for i in ids]) + stream.flush()


def test_an_output_keeps_its_first_space_and_a_whole_text_does_not() -> None:
    mixtral = load("mixtral")
    prompt = mixtral.encode("My favourite condiment is")
    generated = mixtral.encode("My favourite condiment is mustard")[len(prompt) :]
    assert streamed("mixtral", generated) == " mustard"
    assert streamed("mixtral", [*generated, 2]) == " mustard"
    assert streamed("mixtral", [*generated, 2], special_tokens=True) == " mustard</s>"
    assert mixtral.decode(generated) == "mustard"
    assert mixtral.decode([1, *generated, *generated]) == "mustard mustard"
    assert streamed("mixtral", mixtral.encode("  a")) == "   a"


def test_special_tokens_show_as_their_names() -> None:
    mixtral = load("mixtral")
    ids = [*mixtral.encode("Hi </s>"), 0, 2, *mixtral.encode("you", bos=False)]
    assert mixtral.decode(ids) == "Hi </s> ⁇  you"
    assert mixtral.decode(ids, special_tokens=True) == "<s>Hi </s><unk></s> you"
    assert streamed("mixtral", ids, special_tokens=True) == "<s> Hi </s><unk></s> you"


def test_broken_utf8_becomes_replacement_characters() -> None:
    mixtral = load("mixtral")
    for data in (b"\xff", b"a\xe2\x82", b"\xe2\x82a", b"\xed\xa0\x80", b"\xc0\x80", "é👍".encode()):
        assert mixtral.decode(byte_ids(mixtral, data)) == data.decode(errors="replace")
    assert mixtral.decode(byte_ids(mixtral, b" a")) == " a", "encoding adds its space as a piece, not a byte"


@pytest.mark.parametrize("name", VOCABULARIES)
@settings(max_examples=500, derandomize=True, deadline=None, database=None)
@given(data=st.data(), special_tokens=st.booleans())
def test_joined_pieces_are_the_whole_output_for_any_ids(name: str, data: st.DataObject, special_tokens: bool) -> None:
    tokenizer = load(name)
    stream = Detokenizer(tokenizer, special_tokens=special_tokens)
    joined, output = "", b""
    for token_id in data.draw(id_runs(tokenizer)):
        joined += stream.push(token_id)
        output += tokenizer.token_bytes(token_id, special_tokens=special_tokens)
        so_far = output.decode(errors="replace")
        # All but an incomplete character at the very end is out at once, and nothing is ever taken back.
        # (Two, since Python's decoder waits for a third byte after ED A0, although no character starts so.)
        assert so_far.startswith(joined)
        assert so_far[len(joined) :] in ("", "\ufffd", "\ufffd\ufffd")
    assert joined + stream.flush() == output.decode(errors="replace")


@pytest.mark.parametrize("name", VOCABULARIES)
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(text=st.text(max_size=40))
def test_streaming_an_encoded_text_gives_it_back(name: str, text: str) -> None:
    tokenizer = load(name)
    ids, stream = tokenizer.encode(text), Detokenizer(tokenizer)
    pieces = [stream.push(i) for i in ids]
    assert stream.flush() == "", "a whole text leaves nothing behind"
    assert tokenizer.decode(ids) == text.replace("\u2581", " ")
    assert "".join(pieces) == (f" {text}" if text else "").replace("\u2581", " ")


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_character_comes_out_with_its_last_byte(name: str) -> None:
    tokenizer = load(name)
    stream = Detokenizer(tokenizer)
    pieces = [stream.push(i) for i in byte_ids(tokenizer, "é€👍a".encode())]
    assert pieces == ["", "é", "", "", "€", "", "", "", "👍", "a"]
    assert stream.flush() == ""


@pytest.mark.parametrize("name", VOCABULARIES)
def test_broken_characters_become_replacements_and_flush_gives_the_tail(name: str) -> None:
    tokenizer = load(name)
    stream = Detokenizer(tokenizer)
    pieces = [stream.push(i) for i in byte_ids(tokenizer, b"\xe2\x82a\xff\xf0\x9f")]
    assert pieces == ["", "", "\ufffda", "\ufffd", "", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_an_id_outside_the_vocabulary_leaves_the_stream_as_it_was() -> None:
    tokenizer = load("mixtral")
    stream = Detokenizer(tokenizer)
    with pytest.raises(ValueError, match="Token id 32000 "):
        stream.push(32_000)
    first, *rest = byte_ids(tokenizer, "€".encode())
    assert stream.push(first) == ""
    with pytest.raises(ValueError, match="Token id -1 "):
        stream.push(-1)
    assert "".join(stream.push(i) for i in rest) == "€"
