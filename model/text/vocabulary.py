"""The formats of vocabularies, as one Protocol, and the older of them: sentencepiece's `tokenizer.model`.

sentencepiece itself reads it, because conversions to other libraries may differ for runs of spaces.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sentencepiece import SentencePieceProcessor

from model.config import refuse_pointer

SPACE = "\u2581"  # a space inside a piece is written as this character
_GUARD = "\U0010fffd"  # in no piece, so that nothing is merged with it
_FETCH_AGAIN = "fetch tokenizer.model again from the checkpoint's source"


class Vocabulary(Protocol):
    """Pieces by id. Immutable; may be shared between threads. An id of -1 is one that there is not.

    `names` are as the file has them; `pieces` are the bytes that each adds to a running text, `unk_text` those of
    `unk_id`. `control` ids belong to no text. Of the `spaced` ones the space in front may have been put there by
    encoding. `source` is the file's name.
    """

    names: Sequence[str]
    pieces: Sequence[bytes]
    control: frozenset[int]
    spaced: frozenset[int]
    bos_id: int
    eos_id: int
    unk_id: int
    unk_text: bytes
    source: str

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of a stretch of text without control ids, whatever the text says. `first`: it begins the whole text."""


class SentencePieces:
    source = "tokenizer.model"

    def __init__(self, data: bytes, *, legacy: bool = True) -> None:
        """`legacy`: where encoding puts a space in front of a text, it does so for every stretch of it; else only for
        the first, if that begins with none. RuntimeError if sentencepiece cannot read the file.
        """
        processor = SentencePieceProcessor(model_proto=data)
        self._processor, self._legacy = processor, legacy
        self._guard_ids = len(processor.encode(_GUARD))
        self.bos_id, self.eos_id, self.unk_id = processor.bos_id(), processor.eos_id(), processor.unk_id()
        ids = list(range(processor.vocab_size()))
        self.names: Sequence[str] = processor.id_to_piece(ids)
        is_byte = processor.is_byte(ids)
        self.control = frozenset(i for i in ids if processor.is_control(i))
        self.pieces: Sequence[bytes] = [
            bytes([int(name[3:5], 16)]) if is_byte[i] else name.replace(SPACE, " ").encode()
            for i, name in enumerate(self.names)
        ]
        self.unk_text = processor.decode([self.unk_id]).encode() if self.unk_id >= 0 else b""
        spaced = [i for i in ids if self.names[i].startswith(SPACE) and i not in self.control and i != self.unk_id]
        # Whether encoding puts a space in front of a text is a setting inside the model file. Decoding a piece that
        # starts with one tells, without a protobuf parser.
        adds_space = bool(spaced) and processor.decode([spaced[0]]).encode() != self.pieces[spaced[0]]
        self.spaced = frozenset(spaced if adds_space else ())

    @classmethod
    def load(cls, file: Path, *, legacy: bool = True) -> "SentencePieces":
        """ValueError says what to change if it cannot be read."""
        if not file.exists():
            raise ValueError(
                f"{file} does not exist: name a checkpoint folder with a tokenizer.model or tokenizer.json, "
                "or such a file."
            )
        try:
            refuse_pointer(file)
            data = file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror}): make it a readable file.") from error
        if not data:  # sentencepiece would take no bytes for "nothing to load yet"
            raise ValueError(f"{file} is empty: {_FETCH_AGAIN}.")
        try:
            return cls(data, legacy=legacy)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{file} is no sentencepiece model, or damaged: {_FETCH_AGAIN}.") from error

    def encode(self, text: str, *, first: bool) -> list[int]:
        # A text that begins with a space gets no second one where `legacy` is off (transformers' own vocabularies).
        if self._legacy or (first and not text.startswith((" ", SPACE))):
            whole: list[int] = self._processor.encode(text)
            return whole
        guarded: list[int] = self._processor.encode(_GUARD + text)  # the space goes in front of the guard
        return guarded[self._guard_ids :]
