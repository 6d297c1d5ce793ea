"""Text to ids and back: a vocabulary, and the tokens that a checkpoint adds to it.

Added and control tokens are found in a text only where the caller says so. A user's `</s>` stays text.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from model.text.merges import Merges
from model.text.names import Names
from model.text.text_files import ADDED, SETTINGS, VOCABULARY, AddedToken, TextFiles
from model.text.vocabulary import SentencePieces, Vocabulary

_MIXTRAL = "which every Mixtral vocabulary has: use the tokenizer.model that belongs to the checkpoint."


class Tokenizer:
    """Text to ids (0 .. vocab_size - 1) and back. Immutable; may be shared between threads."""

    def __init__(
        self, vocabulary: Vocabulary, added: Sequence[AddedToken] = (), files: TextFiles | None = None
    ) -> None:
        """ValueError if the vocabulary has no end-of-sequence piece, or if added tokens leave out ids, or contradict
        its pieces.
        """
        self.vocabulary = vocabulary
        pieces = len(vocabulary.names)
        further = [token for token in added if token.id >= pieces]
        self.vocab_size = pieces + len(further)
        _check_added(vocabulary, added, files)
        self.bos_id, self.eos_id, self.unk_id = vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id
        self._ids = {name: i for i, name in enumerate(vocabulary.names)} | {t.text: t.id for t in further}
        named_eos = None
        if files is not None:
            self.bos_id = self._ids.get(files.named("bos_token"), self.bos_id)
            named_eos = self._ids.get(files.named("eos_token"))
            self.eos_id = self.eos_id if named_eos is None else named_eos
        chatml_end = self._ids.get("<|im_end|>") if "<|im_start|>" in self._ids else None
        self._ends = {i for i in (named_eos, chatml_end) if i is not None}
        if self.eos_id < 0 or (isinstance(vocabulary, SentencePieces) and min(self.bos_id, self.unk_id) < 0):
            raise ValueError(
                f"The vocabulary lacks a beginning-of-sequence, end-of-sequence or unknown piece, {_MIXTRAL}"
            )
        said = files.adds_bos if files is not None else None
        usual = vocabulary.adds_bos if isinstance(vocabulary, Merges) else True
        self.adds_bos = self.bos_id >= 0 and (usual if said is None else said)

        special = vocabulary.control | {t.id for t in added if t.special and t.id != vocabulary.unk_id}
        self._control = frozenset(special)
        self._bytes = [*vocabulary.pieces, *(t.text.encode() for t in further)]
        # These ids differ with and without special tokens: id -> its form in text, id -> its name.
        self._plain = dict.fromkeys(self._control, b"")
        if self.unk_id >= 0:
            self._plain[self.unk_id] = vocabulary.unk_text
        self._all_names = names = [*vocabulary.names, *(t.text for t in further)]
        self._names = {i: names[i].encode() for i in self._plain}
        own = [AddedToken(i, names[i]) for i in (*vocabulary.control, vocabulary.unk_id) if i >= 0]
        self.named = Names({t.id: t for t in (*own, *added)}.values())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Of a checkpoint's folder, or of a sentencepiece file; ValueError says what to change if it cannot be read.

        A folder's tokenizer.json goes before its tokenizer.model where tokens were added: a tune was trained with it.
        Without any, the vocabulary is as Mistral trained it, with sentencepiece.
        """
        if not path.is_dir():
            return cls(SentencePieces.load(path))
        files = TextFiles(path)
        added = files.added_tokens()
        model = path / SentencePieces.source
        if not files.vocabulary:
            return cls(SentencePieces.load(model, legacy=files.legacy), added, files)
        merges = Merges(
            path, files.vocabulary, {role: files.named(role) for role in ("bos_token", "eos_token", "unk_token")}
        )
        if not model.exists():
            return cls(merges, added, files)
        pieces = SentencePieces.load(model, legacy=files.legacy)
        _check_same(path, pieces, merges)
        more = any(token.id >= len(pieces.names) for token in added)
        return cls(merges if more else pieces, added, files)

    def encode(self, text: str, *, bos: bool = True, specials: bool = False) -> list[int]:
        """Ids of a text, with one beginning-of-sequence id in front if `bos`, and if the checkpoint is used to one.
        With `specials`, names of added and control tokens in the text become their ids, and a text that begins with
        the one in front gets no other; else they stay text. ValueError if the text has no UTF-8 form (it has a lone
        surrogate).
        """
        _check_utf8(text)
        ids = self.encode_named(text) if specials else self.vocabulary.encode(text, first=True)
        if bos and self.adds_bos and not (specials and ids[:1] == [self.bos_id]):
            ids.insert(0, self.bos_id)
        return ids

    def encode_named(self, text: str, written: Callable[[str], str] = str) -> list[int]:
        """Ids of a text in which names of tokens are these tokens; `written` changes what lies between them first."""
        ids: list[int] = []
        first = True
        for part in self.named.parts(text):
            if isinstance(part, AddedToken):
                ids.append(part.id)
            else:
                ids += self.vocabulary.encode(written(part), first=first)
            first = False
        return ids

    def id_of(self, name: str) -> int | None:
        """The id of a piece or an added token, by its name in the files."""
        return self._ids.get(name)

    def name_of(self, token_id: int) -> str:
        """A piece or an added token by its name in the files; "" for an id that there is not."""
        return self._all_names[token_id] if 0 <= token_id < self.vocab_size else ""

    def eos_ids(self, others: Iterable[int]) -> tuple[int, ...]:
        """The ids that end an output: `others`, which the model's configuration names, and those that the vocabulary's
        does. A turn of ChatML ends with a token that some tunes name in no file.
        """
        return tuple(sorted({*others, *self._ends}))

    def token_bytes(self, token_id: int, *, special_tokens: bool = False) -> bytes:
        """The bytes that one id adds to a running text; a byte piece is one byte. A control token (`<s>`, `</s>`) adds
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
            data += piece[1:] if starts_text and token_id in self.vocabulary.spaced else piece
            # A <s> in front is no part of the text: the id after it still starts it.
            starts_text = starts_text and token_id in self._control
        return data.decode(errors="replace")


def _check_added(vocabulary: Vocabulary, added: Sequence[AddedToken], files: TextFiles | None) -> None:
    where = files.folder if files is not None else ""
    size = len(vocabulary.names)
    for token in added:
        if token.id < size and vocabulary.names[token.id] != token.text:
            raise ValueError(
                f"{where}: {SETTINGS} or {ADDED} has {token.text!r} as token {token.id}, which is "
                f"{vocabulary.names[token.id]!r} in {vocabulary.source}: keep the files of one checkpoint"
            )
    further = [token.id for token in added if token.id >= size]
    for expected, found in enumerate(further, start=size):
        if found != expected:
            raise ValueError(
                f"{where}: {SETTINGS}, {ADDED} and {VOCABULARY} have no token {expected}, between the {size} pieces of "
                f"{vocabulary.source} and token {found}: add the missing one, or fetch these files again"
            )


def _check_same(folder: Path, pieces: Vocabulary, merges: Vocabulary) -> None:
    """Refuse two files of different vocabularies, because no one knows which of them the weights belong to."""
    for i, (one, other) in enumerate(zip(pieces.names, merges.names, strict=False)):
        if one != other:
            raise ValueError(
                f"{folder}: token {i} is {one!r} in {pieces.source} and {other!r} in {merges.source}: "
                "remove the file that does not belong to the checkpoint"
            )
    if len(merges.names) < len(pieces.names):
        raise ValueError(
            f"{folder}: {pieces.source} has {len(pieces.names)} pieces, {merges.source} {len(merges.names)}: "
            "remove the file that does not belong to the checkpoint"
        )


def _check_utf8(text: str) -> None:
    """Refuse a lone surrogate here: sentencepiece would answer it with an error about C++ types."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, "
            "which is no Unicode text: remove it, or decode the text correctly before sending it."
        ) from None
