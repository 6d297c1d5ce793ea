"""The tokenizer against mistral-common (which must be installed) with the real Mixtral-8x7B vocabulary."""

import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from model.text.tokenizer import Tokenizer

VOCABULARIES = Path(str(files("mistral_common"))) / "data"
MIXTRAL = VOCABULARIES / "tokenizer.model.v1"

FRAGMENTS = ["</s>", "<s>", "<unk>", "[INST]", "[/INST]", "<0x0A>", "<0xE2>", "<<SYS>>", "한국어", "日本語"]
FRAGMENTS += ["你好,世界", "Привет", "שלום", "مرحبا", "e\u0301", "👍🏽", "👩‍👩‍👧", "🇨🇦"]
FRAGMENTS += ["mustard", "DON'T", "0x1F"]
FRAGMENTS += ["def f(self, x):", "return{'a':[1,2]}", "=> !=", "3.14159", "https://a.b/c?d=e#f"]
FRAGMENTS += list("«»ﬁⅧ🫠∑∂\u2581\u00a0\u200b\ufeff\u2028\ufffd\ue000\U0010ffff\u0301")
BLANKS = ["", " ", " ", "  ", "   ", " " * 17, "\n", "\n\n", "\r\n", "\t", "\x00", "\x00\x00", "\x7f"]


def random_text(rng: random.Random) -> str:
    """Words, code, scripts, control text, blanks and any code points, in any mixture."""
    parts = []
    for _ in range(rng.randrange(0, 12)):
        match rng.randrange(4):
            case 0:
                parts.append(rng.choice(FRAGMENTS))
            case 1:
                parts.append(rng.choice(BLANKS))
            case 2:
                parts.append("".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(12))))
            case _:
                top = rng.choice([0x80, 0x800, 0xD800, 0x110000])
                points = [rng.randrange(top) for _ in range(rng.randrange(5))]
                parts.append("".join(chr(p) for p in points if not 0xD800 <= p < 0xE000))
    return "".join(parts)


@pytest.fixture(scope="module")
def mixtral() -> Tokenizer:
    return Tokenizer.load(MIXTRAL)


@pytest.fixture(scope="module")
def oracle() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(MIXTRAL)


def train(folder: Path, line: str = "a small corpus of words", **options: str | int | bool) -> Path:
    """A vocabulary of a few dozen pieces, with the settings under test."""
    corpus, prefix = folder / "corpus.txt", folder / "tokenizer"
    corpus.write_text(f"{line}\n" * 50)
    settings = {"input": corpus, "model_prefix": prefix, "model_type": "bpe", "vocab_size": 40}
    settings |= {"hard_vocab_limit": "false", "minloglevel": 2} | options
    SentencePieceTrainer.train(" ".join(f"--{name}={value}".lower() for name, value in settings.items()))
    return prefix.with_suffix(".model")


def test_ids_and_text_equal_mistral_common_on_2000_strings(mixtral: Tokenizer, oracle: SentencePieceTokenizer) -> None:
    rng = random.Random(8)
    texts = {random_text(rng) for _ in range(2600)} | set(FRAGMENTS) | set(BLANKS)
    assert len(texts) >= 2000
    for text in sorted(texts):
        ids = mixtral.encode(text)
        assert ids == oracle.encode(text, bos=True, eos=False), repr(text)
        assert mixtral.encode(text, bos=False) == ids[1:], repr(text)
        assert mixtral.decode(ids) == oracle.decode(ids, SpecialTokenPolicy.IGNORE), repr(text)
        # sentencepiece writes a space as U+2581, so that character itself comes back as a space.
        assert mixtral.decode(ids) == text.replace("\u2581", " "), repr(text)


def test_attributes_and_bos(mixtral: Tokenizer) -> None:
    assert (mixtral.vocab_size, mixtral.unk_id, mixtral.bos_id, mixtral.eos_id) == (32_000, 0, 1, 2)
    assert mixtral.encode("") == [1]
    assert mixtral.encode("", bos=False) == []
    assert mixtral.encode("Hi") == [1, *mixtral.encode("Hi", bos=False)]


@pytest.mark.parametrize("text", ["</s>", "<s>", "<unk>", "a</s>b", "<s><s>", "[INST] x [/INST]", "<0x41>"])
def test_control_text_stays_text(mixtral: Tokenizer, text: str) -> None:
    ids = mixtral.encode(text, bos=False)
    assert min(ids) >= 259, "text became a control or byte id"
    assert mixtral.decode(ids) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ab\ud800", "U+D800) at character 2"),
        ("\udfff", "U+DFFF) at character 0"),
        ("\ud83d\ude00", "U+D83D"),
    ],
)
def test_lone_surrogates_are_refused(mixtral: Tokenizer, text: str, said: str) -> None:
    with pytest.raises(ValueError, match="remove it") as caught:
        mixtral.encode(text)
    assert said in str(caught.value)
    assert type(caught.value) is ValueError, "the codec's own error would reach the client"


def test_other_settings_of_the_model_file_are_respected(tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
        {"add_dummy_prefix": False, "line": "word"},  # no piece starts with a space
        {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "control_symbols": "\u2581c"},
        {"remove_extra_whitespaces": False},
        {"byte_fallback": True, "vocab_size": 300},
    ]
    for number, options in enumerate(variants):
        (tmp_path / str(number)).mkdir()
        file = train(tmp_path / str(number), **options)
        processor, tokenizer = SentencePieceProcessor(model_file=str(file)), Tokenizer.load(file.parent)
        for text in ["", "a small", " small", "  a  b ", "ω", "ω ω", "a\nb", "</s>"]:
            ids = processor.encode(text)
            assert tokenizer.encode(text) == [tokenizer.bos_id, *ids]
            assert tokenizer.decode([tokenizer.bos_id, *ids]) == processor.decode(ids), options


def test_a_folder_and_a_file_load_the_same(tmp_path: Path, mixtral: Tokenizer) -> None:
    (tmp_path / "tokenizer.model").write_bytes(MIXTRAL.read_bytes())
    for path in (tmp_path, tmp_path / "tokenizer.model"):
        assert Tokenizer.load(path).encode("Hi  there") == mixtral.encode("Hi  there")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, b"", "does not exist: name a checkpoint folder"),
        ("tokenizer.json", b'{"model": {}}', "only BPE vocabularies are read"),
        ("tokenizer.model", b"", "is empty: fetch tokenizer.model again"),
        ("tokenizer.model", b"no protobuf", "no sentencepiece model, or damaged: fetch"),
        ("tokenizer.model", MIXTRAL.read_bytes()[:100_000], "no sentencepiece model, or damaged: fetch"),
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\n", "then `git lfs pull` there"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_change(tmp_path: Path, name: str | None, content: bytes, said: str) -> None:
    if name:
        (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / (name or "tokenizer.model")) if name != "tokenizer.json" else (tmp_path,):
        with pytest.raises(ValueError) as caught:
            Tokenizer.load(path)
        assert said in str(caught.value)
        assert str(tmp_path) in str(caught.value)


def test_a_folder_in_place_of_the_file_and_a_vocabulary_without_bos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint" / "tokenizer.model").mkdir(parents=True)
    with pytest.raises(ValueError, match="cannot be read"):
        Tokenizer.load(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="lacks a beginning-of-sequence"):
        Tokenizer.load(train(tmp_path, bos_id=-1))
