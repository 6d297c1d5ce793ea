"""Mixtral's tokenizer: a checkpoint's `tokenizer.model`, read by sentencepiece; chat on ids; decoding.

sentencepiece itself is used because conversions of its vocabulary to other libraries differ for runs of spaces, and
turn `</s>` written by a user into the end-of-sequence id.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from model.config import refuse_pointer
from model.text.chat import ChatMessage, render

_SPACE = "\u2581"  # sentencepiece writes a space inside a piece as this character
_MIXTRAL_V1_SIZE = 32_000
_MIXTRAL_V1_START = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
_FETCH_AGAIN = "fetch tokenizer.model again from the checkpoint's source"


class Tokenizer:
    """Text to ids (0 .. vocab_size - 1) and back. Immutable; may be shared between threads."""

    def __init__(self, processor: SentencePieceProcessor) -> None:
        """ValueError if the vocabulary has no `<s>`, `</s>` or `<unk>`."""
        self._processor = processor
        self.vocab_size: int = processor.vocab_size()
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()
        self.unk_id: int = processor.unk_id()
        if min(self.bos_id, self.eos_id, self.unk_id) < 0:
            raise ValueError(
                "The vocabulary lacks a beginning-of-sequence, end-of-sequence or unknown piece, which every "
                "Mixtral vocabulary has: use the tokenizer.model that belongs to the checkpoint."
            )
        ids = list(range(self.vocab_size))
        pieces, is_byte = processor.id_to_piece(ids), processor.is_byte(ids)
        self._control = frozenset(i for i in ids if processor.is_control(i))
        self._bytes = [
            bytes([int(piece[3:5], 16)]) if is_byte[i] else piece.replace(_SPACE, " ").encode()
            for i, piece in enumerate(pieces)
        ]
        # These ids differ with and without special tokens: id -> its form in text, id -> its name.
        self._plain = dict.fromkeys(self._control, b"")
        self._plain[self.unk_id] = processor.decode([self.unk_id]).encode()
        self._names = {i: pieces[i].encode() for i in self._plain}
        spaced = [i for i in ids if pieces[i].startswith(_SPACE) and i not in self._plain]
        # Whether encoding puts a space in front of a text is a setting inside the model file. Decoding a piece that
        # starts with one tells, without a protobuf parser.
        adds_space = bool(spaced) and processor.decode([spaced[0]]).encode() != self._bytes[spaced[0]]
        self._spaced = frozenset(spaced if adds_space else ())
        # Whether `encode_chat` is defined: later vocabularies have [INST] as a control piece, and another template.
        self.supports_chat: bool = (
            self.vocab_size == _MIXTRAL_V1_SIZE
            and (self.unk_id, self.bos_id, self.eos_id) == (0, 1, 2)
            and pieces[: len(_MIXTRAL_V1_START)] == _MIXTRAL_V1_START
            and all(is_byte[3:259])
            and processor.piece_to_id("[INST]") not in self._control
        )

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a sentencepiece file, or that of a checkpoint folder; ValueError says what to change if it cannot."""
        file = path / "tokenizer.model" if path.is_dir() else path
        if file.suffix == ".json" or (not file.exists() and (file.parent / "tokenizer.json").exists()):
            raise ValueError(
                f"{path} offers a tokenizer.json, which is not read because conversions of Mixtral's "
                "vocabulary give other ids: use the tokenizer.model of the original checkpoint."
            )
        if not file.exists():
            raise ValueError(f"{file} does not exist: name a checkpoint folder with a tokenizer.model, or such a file.")
        try:
            refuse_pointer(file)
            data = file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror}): make it a readable file.") from error
        if not data:  # sentencepiece would take no bytes for "nothing to load yet"
            raise ValueError(f"{file} is empty: {_FETCH_AGAIN}.")
        try:
            processor = SentencePieceProcessor(model_proto=data)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{file} is no sentencepiece model, or damaged: {_FETCH_AGAIN}.") from error
        return cls(processor)

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Ids of a text, with one `<s>` in front unless `bos` is false. `</s>` or `<s>` in the text become ordinary
        pieces, never control ids. ValueError if the text has no UTF-8 form (a lone surrogate).
        """
        _check_utf8(text, "The text")
        ids: list[int] = self._processor.encode(text)
        return [self.bos_id, *ids] if bos else ids

    def encode_chat(self, messages: Sequence[ChatMessage], *, continue_final_message: bool = False) -> list[int]:
        """Ids of a conversation in Mixtral's v1 template (`model.text.chat.render`), `<s>` in front. ValueError for a
        conversation that it refuses, text without UTF-8 form, or a vocabulary without chat.
        """
        if not self.supports_chat:
            raise ValueError("This checkpoint's vocabulary has no chat template: send the prompt as text or token ids.")
        for index, message in enumerate(messages):
            _check_utf8(message.content, f"The content of messages[{index}]")
        ids = [self.bos_id]
        for turn in render(messages, continue_final_message=continue_final_message):
            # Each turn apart, as in tuning: encoding puts a space in front of every one of them.
            ids += self.encode(turn.text, bos=False)
            if turn.closed:
                ids.append(self.eos_id)
        return ids

    def token_bytes(self, token_id: int, *, special_tokens: bool = False) -> bytes:
        """The bytes that one id adds to a running text; a byte piece is one byte. A control piece (`<s>`, `</s>`) adds
        nothing and `<unk>` sentencepiece's " \u2047 "; with `special_tokens` both add their names. ValueError for an id
        outside the vocabulary.
        """
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"Token id {token_id} is not in the vocabulary: use ids from 0 to {self.vocab_size - 1}.")
        if token_id in self._plain:
            return (self._names if special_tokens else self._plain)[token_id]
        return self._bytes[token_id]

    def named_bytes(self, token_id: int) -> bytes:
        """The bytes of a token by itself, a control token's name; none for ids that only pad an embedding."""
        return self.token_bytes(token_id, special_tokens=True) if token_id < self.vocab_size else b""

    def decode(self, ids: Iterable[int], *, special_tokens: bool = False) -> str:
        """A whole text of its ids: the space that encoding put in front is taken away, `decode(encode(" a")) == " a"`.
        Bytes that are no UTF-8 become U+FFFD. `special_tokens` and errors as in `token_bytes`.
        """
        starts_text, data = True, bytearray()
        for token_id in ids:
            piece = self.token_bytes(token_id, special_tokens=special_tokens)
            data += piece[1:] if starts_text and token_id in self._spaced else piece
            # A <s> in front is no part of the text: the id after it still starts it.
            starts_text = starts_text and token_id in self._control
        return data.decode(errors="replace")


def _check_utf8(text: str, what: str) -> None:
    """Refuse a lone surrogate here: sentencepiece would answer it with an error about C++ types."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, "
            "which is no Unicode text: remove it, or decode the text correctly before sending it."
        ) from None
