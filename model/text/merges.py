"""The newer format of vocabularies, `tokenizer.json`: byte-pair merges, read by the library that it belongs to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library

from model.text.vocabulary import SPACE


class Merges:
    """Its `encode` knows no added tokens: the library would find their names in any text."""

    source = "tokenizer.json"

    def __init__(self, folder: Path, content: Mapping[str, Any], names: Mapping[str, str]) -> None:
        """Of the file's content; `names` has the texts of `bos_token`, `eos_token` and `unk_token`, or "" for none.
        ValueError names what cannot be read.
        """
        file, model = folder / self.source, content.get("model")
        if (
            not isinstance(model, Mapping)
            or model.get("type", "BPE") != "BPE"
            or not isinstance(model.get("vocab"), dict)
        ):
            kind = model.get("type") if isinstance(model, Mapping) else None
            raise ValueError(f"{file}: model.type is {kind!r}, but only BPE vocabularies are read")
        vocab: dict[str, Any] = model["vocab"]
        added = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
        ids = {name: i for name, i in vocab.items() if added.get(name, i) == i}
        inner = {i: name for name, i in ids.items() if type(i) is int}
        if sorted(inner) != list(range(len(inner))) or len(inner) != len(vocab):
            missing = next(i for i in range(len(inner) + 1) if i not in inner)
            raise ValueError(f"{file}: model.vocab has no piece for id {missing}: copy it again from its source")
        self._content, self._file = content, file
        self.names: Sequence[str] = [inner[i] for i in range(len(inner))]
        whole = ids | added
        self.bos_id, self.eos_id = whole.get(names["bos_token"], -1), whole.get(names["eos_token"], -1)
        unk = names["unk_token"] or model.get("unk_token") or ""
        self.unk_id, self.unk_text = whole.get(unk, -1), b""
        decoders = [step.get("type") for step in _steps(content.get("decoder"), "decoders")]
        byte_level = "ByteLevel" in decoders
        falls_back = "ByteFallback" in decoders
        self.pieces: Sequence[bytes] = [
            _byte_level(name) if byte_level else _with_bytes(name, falls_back) for name in self.names
        ]
        special = {t["id"] for t in content.get("added_tokens") or () if t.get("special")}
        self.control = frozenset(i for i in special if i < len(self.names)) - {self.unk_id}
        begun = self.encode("a", first=True)
        adds_space = bool(begun) and self.names[begun[0]].startswith(SPACE)
        spaced = (i for i, name in enumerate(self.names) if name.startswith(SPACE))
        self.spaced = frozenset(spaced if adds_space else ()) - self.control

    def encode(self, text: str, *, first: bool) -> list[int]:
        ids: list[int] = (self._first if first else self._later).encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the file's own processing puts the beginning-of-sequence token in front of a text."""
        for step in _steps(self._content.get("post_processor"), "processors"):
            begin: Any = next(iter(step.get("single") or ()), {})
            named = begin.get("SpecialToken", {}).get("id") if isinstance(begin, Mapping) else None
            if named is not None and self.bos_id in step["special_tokens"][named]["ids"]:
                return True
        return False

    @cached_property
    def _first(self) -> Library:
        return self._library(self._content)

    @cached_property
    def _later(self) -> Library:
        """`prepend_scheme: first` puts a space in front of the text's beginning, but not behind an added token."""
        changed = json.loads(json.dumps(self._content.get("pre_tokenizer")))
        for step in _steps(changed, "pretokenizers"):
            if step.get("prepend_scheme") == "first":
                step["prepend_scheme"] = "never"
        return self._library({**self._content, "pre_tokenizer": changed})

    def _library(self, content: Mapping[str, Any]) -> Library:
        plain: dict[str, Any] = {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        try:
            return Library.from_str(json.dumps({**content, **plain}))
        except Exception as error:  # the library raises a bare Exception for whatever it cannot read
            raise ValueError(f"{self._file} cannot be read ({error}): copy it again from its source") from None


def _steps(value: Any, of_sequence: str) -> Iterator[dict[str, Any]]:
    """A step, or those of a sequence of steps."""
    if isinstance(value, dict):
        for inner in value.get(of_sequence, ()) if value.get("type") == "Sequence" else ():
            yield from _steps(inner, of_sequence)
        yield value


def _with_bytes(name: str, falls_back: bool) -> bytes:
    if falls_back and len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace(SPACE, " ").encode()


def _byte_level(name: str) -> bytes:
    return b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in name)


def _byte_characters() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2): itself if it can be seen, else one
    from 256 on.
    """
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(unseen)}


_BYTES = _byte_characters()
