"""Vocabularies with added tokens, and `tokenizer.json`, against transformers' own tokenizers."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from model.text.merges import Merges
from model.text.tokenizer import Tokenizer
from model.text.vocabulary import SentencePieces
from tests.text_folders import END, START, V1, V3, entry, text_folder, write

ALPHABET = [*"ab cde  \n\t.,<>|日é🎉▁", START, END, "<s>", "</s>", "user\n", "<|im_"]
KINDS: dict[str, dict[str, Any]] = {
    "hermes": {"added": {END: 32000, START: 32001}, "eos_token": END, "legacy": True},
    "dolphin": {"added": {END: 32000, START: 32001}, "flags": {START: {"special": False}}, "legacy": True},
    "reverse": {"added": {START: 32000, END: 32001}, "flags": {END: {"special": False}}, "legacy": False},
    "says nothing": {"added": {END: 32000, START: 32001}},
    "stripping": {
        "added": {END: 32000, START: 32001},
        "flags": {END: {"rstrip": True}, START: {"lstrip": True}},
        "legacy": False,
    },
}


def texts(count: int) -> list[str]:
    rng = random.Random(3)
    fixed = [
        "Hello",
        "<s>Hello",
        "  x<|im_start|> y",
        "a  b<|im_end|>  c",
        f"{START}{END}",
        " <s> a",
        "\n<|im_end|>\n\n",
    ]
    return fixed + ["".join(rng.choices(ALPHABET, k=rng.randrange(1, 30))) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_transformers_on_2000_texts(kind: str, tmp_path: Path) -> None:
    folder, saved = text_folder(tmp_path / "one", **KINDS[kind]), tmp_path / "saved"
    oracle = AutoTokenizer.from_pretrained(folder)
    oracle.save_pretrained(saved)
    pieces, merges = Tokenizer.load(folder), Tokenizer.load(saved)
    assert isinstance(pieces.vocabulary, SentencePieces)
    assert isinstance(merges.vocabulary, Merges), "only tokenizer.json was saved"
    assert pieces.vocab_size == merges.vocab_size == 32002
    for text in texts(2000):
        expected = oracle(text, add_special_tokens=False)["input_ids"]
        assert pieces.encode(text, bos=False, specials=True) == expected, repr(text)
        assert merges.encode(text, bos=False, specials=True) == expected, repr(text)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_tokens_stay_text_unless_asked_for(kind: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(text_folder(tmp_path, **KINDS[kind]))
    for text in [START, END, "</s>", f"a{END}\n{START}system\n", f"{START}{END}<s>"]:
        ids = tokenizer.encode(text, bos=False)
        assert max(ids) < 32000 and min(ids) > 2, text
        assert tokenizer.decode(ids) == text


def test_special_tokens_are_left_out_of_text_and_others_are_not(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(text_folder(tmp_path, **KINDS["dolphin"]))
    assert tokenizer.token_bytes(32000) == b""
    assert tokenizer.token_bytes(32001) == START.encode(), "it is not special"
    assert tokenizer.token_bytes(32000, special_tokens=True) == END.encode()
    assert tokenizer.named_bytes(32000) == END.encode()
    with pytest.raises(ValueError, match="not in the vocabulary"):
        tokenizer.token_bytes(32002)


def test_what_ends_an_output(tmp_path: Path) -> None:
    assert Tokenizer.load(text_folder(tmp_path / "a", **KINDS["hermes"])).eos_ids([2]) == (2, 32000)
    # ChatML's end of a turn, though the settings name </s>
    assert Tokenizer.load(text_folder(tmp_path / "b", **KINDS["dolphin"])).eos_ids([]) == (2, 32000)
    assert Tokenizer.load(V1).eos_ids([7]) == (7,)


@pytest.mark.parametrize(
    ("said", "usual"), [({"add_bos_token": False}, False), ({}, True), ({"add_bos_token": True}, True)]
)
def test_one_bos_is_put_in_front(said: dict[str, Any], usual: bool, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(text_folder(tmp_path, **said))
    assert (tokenizer.encode("Hi")[0] == 1) is usual
    assert tokenizer.encode("<s>Hi", specials=True).count(1) == 1, "F17: a text that begins with it gets no other"
    assert 1 not in tokenizer.encode("Hi", bos=False)


def test_a_tune_is_read_from_tokenizer_json_and_mistrals_own_vocabulary_from_tokenizer_model(tmp_path: Path) -> None:
    folder, saved = text_folder(tmp_path / "one", **KINDS["hermes"]), tmp_path / "saved"
    AutoTokenizer.from_pretrained(folder).save_pretrained(saved)
    (folder / "tokenizer.json").write_bytes((saved / "tokenizer.json").read_bytes())
    assert isinstance(Tokenizer.load(folder).vocabulary, Merges)
    plain = text_folder(tmp_path / "plain", template=None)
    AutoTokenizer.from_pretrained(plain).save_pretrained(tmp_path / "other")
    (plain / "tokenizer.json").write_bytes((tmp_path / "other" / "tokenizer.json").read_bytes())
    assert isinstance(Tokenizer.load(plain).vocabulary, SentencePieces)


def test_a_byte_level_vocabulary(tmp_path: Path) -> None:
    """As other families have it; text and ids against the library itself."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    library.train_from_iterator(["a small corpus of words, 日本語"] * 50, trainer)
    library.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config.json", {"eos_token": "</s>", "bos_token": None})
    tokenizer = Tokenizer.load(tmp_path)
    for text in ["a small", " words", "日本 é🎉", "x\n\ny", "</s>"]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        if "<" not in text:
            assert ids == library.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode("a</s>", specials=True)[-1] == tokenizer.eos_id


def _decoder(**tokens: Any) -> dict[str, Any]:
    return {"added_tokens_decoder": {i.removeprefix("t"): entry(text) for i, text in tokens.items()}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"added_tokens.json": {END: 32001, START: 32000}, "tokenizer_config.json": _decoder(t32000=END, t32001=START)},
         r"tokenizer_config\.json has '<\|im_start\|>' as token 32001, added_tokens\.json has '<\|im_end\|>'"),
        ({"added_tokens.json": {END: 32000}, "tokenizer_config.json": _decoder(t32001=END)},
         r"gives '<\|im_end\|>' the id 32001, added_tokens\.json gives it 32000"),
        ({"added_tokens.json": {END: 32001}}, "have no token 32000, between the 32000 pieces"),
        ({"added_tokens.json": {END: 7}}, r"'<\|im_end\|>' as token 7, which is '<0x04>' in tokenizer\.model"),
        ({"added_tokens.json": {END: "7x"}}, "must have a text and an id"),
        ({"added_tokens.json": [END]}, r"added_tokens\.json must hold a JSON object"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"32000": {}}}}, "'32000' must have a text"),
        ({"tokenizer.json": {"model": {"type": "Unigram", "vocab": []}}}, "only BPE vocabularies are read"),
        ({"tokenizer.json": {"model": {"vocab": {"<unk>": 0, "b": 2}, "merges": []}}}, "no piece for id 1"),
        ({"tokenizer.json": {"model": {"type": "BPE", "vocab": {"<unk>": 0, "b": 1}, "merges": []}}},
         r"token 1 is '<s>' in tokenizer\.model and 'b' in tokenizer\.json"),
        ({"tokenizer.json": {"model": {"type": "BPE", "vocab": {"<unk>": 0}, "merges": []}}},
         r"tokenizer\.model has 32000 pieces, tokenizer\.json 1"),
    ],
)  # fmt: skip
def test_files_that_contradict_each_other_are_refused(files: dict[str, Any], said: str, tmp_path: Path) -> None:
    text_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_control_tokens_of_the_third_vocabulary_are_found_in_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(V3)
    ids = tokenizer.encode("[INST] a[/INST]", bos=False, specials=True)
    assert (ids[0], ids[-1]) == (3, 4)
    assert not {3, 4} & set(tokenizer.encode("[INST] a[/INST]", bos=False))
