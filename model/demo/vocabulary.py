"""The tokenizer of the demo checkpoint: a sentencepiece BPE vocabulary in the manner of Mistral's v1 file."""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import sentencepiece

from model.demo.corpus import documents

PIECES: Final = 2048
BOS, EOS = 1, 2


def train_tokenizer(target: Path, seed: int, count: int = 8000) -> None:
    """Write `target` (tokenizer.model): unk 0, bos 1, eos 2, the 256 bytes at 3..258, then merges."""
    # Sentencepiece trains on lines; so a line break stays the byte piece <0x0A>, as in Llama's vocabulary.
    lines = (line for _, text in documents(seed, count) for line in text.split("\n") if line)
    staging = target.with_suffix(".tmp")
    with staging.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=stream,
            vocab_size=PIECES,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=1.0,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            add_dummy_prefix=True,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            unk_id=0,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    staging.replace(target)


def load_tokenizer(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Read a tokenizer.model."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def pack(tokenizer: sentencepiece.SentencePieceProcessor, texts: Iterable[str]) -> "array[int]":
    """Encode every text as BOS + text + EOS into one stream of ids."""
    stream: array[int] = array("l")
    for text in texts:
        stream.append(BOS)
        stream.extend(tokenizer.encode(text))
        stream.append(EOS)
    return stream
