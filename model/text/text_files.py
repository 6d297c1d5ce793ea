"""A checkpoint's files about its text, beside the vocabulary itself: settings, added tokens, templates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import read_json

SETTINGS = "tokenizer_config.json"
ADDED = "added_tokens.json"
VOCABULARY = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token beside the vocabulary's own pieces: found in a text as a whole, before the rest is encoded.

    `special` tokens belong to no text: an output leaves them out. `lstrip` and `rstrip` take the blanks beside the
    token along; a `single_word` one counts only where no letter or digit touches it (transformers' `AddedToken`).
    """

    id: int
    text: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class TextFiles:
    """The JSON files of a folder, each read once; a missing one is empty. ValueError for a damaged one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings, self._added = _object(folder / SETTINGS), _object(folder / ADDED)
        self.vocabulary = _object(folder / VOCABULARY)

    @property
    def legacy(self) -> bool:
        """Whether a blank is put in front of every stretch of text, or of the first one only (`legacy: false`)."""
        return self._settings.get("legacy") is not False

    @property
    def adds_bos(self) -> bool | None:
        """Whether a text begins with the beginning-of-sequence token; None where nothing is said."""
        value = self._settings.get("add_bos_token")
        return value if isinstance(value, bool) else None

    def named(self, role: str) -> str:
        """The text of `eos_token`, `bos_token` or `unk_token`; "" where none is named."""
        value = self._settings.get(role)
        if isinstance(value, Mapping):
            value = value.get("content")
        return value if isinstance(value, str) else ""

    @property
    def templates(self) -> Mapping[str, str]:
        """Chat templates by name, of which the usual one is `default`. A file of its own goes before the settings."""
        found = self._settings.get("chat_template")
        named: dict[str, str] = {}
        for entry in found if isinstance(found, list) else ():
            if isinstance(entry, Mapping) and isinstance(entry.get("template"), str):
                named[str(entry.get("name"))] = entry["template"]
        if isinstance(found, str):
            named["default"] = found
        file = self.folder / "chat_template.jinja"
        if file.is_file():
            named["default"] = file.read_text(encoding="utf-8", errors="replace")
        for other in sorted((self.folder / "additional_chat_templates").glob("*.jinja")):
            named.setdefault(other.stem, other.read_text(encoding="utf-8", errors="replace"))
        return named

    def added_tokens(self) -> list[AddedToken]:
        """Of all files together, by id. ValueError if two of them disagree, naming both."""
        found: dict[int, tuple[AddedToken, str]] = {}
        ids: dict[str, tuple[int, str]] = {}
        for token, file in [*self._of_settings(), *self._of_added(), *self._of_vocabulary()]:
            known, where = found.setdefault(token.id, (token, file))
            if known.text != token.text:
                raise ValueError(
                    f"{self.folder}: {where} has {known.text!r} as token {token.id}, {file} has {token.text!r}: "
                    "keep the files of one checkpoint"
                )
            known_id, where = ids.setdefault(token.text, (token.id, file))
            if known_id != token.id:
                raise ValueError(
                    f"{self.folder}: {where} gives {token.text!r} the id {known_id}, {file} gives it {token.id}: "
                    "keep the files of one checkpoint"
                )
        return [found[i][0] for i in sorted(found)]

    def _of_settings(self) -> list[tuple[AddedToken, str]]:
        listed = self._settings.get("added_tokens_decoder")
        pairs = listed.items() if isinstance(listed, Mapping) else ()
        return [(self._token(i, given, SETTINGS), SETTINGS) for i, given in pairs]

    def _of_vocabulary(self) -> list[tuple[AddedToken, str]]:
        listed = self.vocabulary.get("added_tokens")
        entries = listed if isinstance(listed, list) else ()
        return [(self._token(e.get("id") if isinstance(e, Mapping) else e, e, VOCABULARY), VOCABULARY) for e in entries]

    def _of_added(self) -> list[tuple[AddedToken, str]]:
        special = {self.named(role) for role in ("bos_token", "eos_token", "unk_token", "pad_token")}
        found = []
        for text, i in self._added.items():
            token = self._token(i, {"content": text, "special": text in special}, ADDED)
            found.append((token, ADDED))
        return found

    def _token(self, i: Any, given: Any, file: str) -> AddedToken:
        number = int(i) if isinstance(i, str) and i.isdecimal() else i
        if isinstance(given, str):
            given = {"content": given}
        text = given.get("content") if isinstance(given, Mapping) else None
        if (
            not isinstance(number, int)
            or isinstance(number, bool)
            or number < 0
            or not isinstance(text, str)
            or not text
        ):
            raise ValueError(
                f"{self.folder / file}: the added token {i!r} must have a text and an id from 0: copy it again"
            )
        flags = {name: given.get(name) is True for name in ("lstrip", "rstrip", "single_word")}
        return AddedToken(number, text, given.get("special") is not False, **flags)


def _object(file: Path) -> Mapping[str, Any]:
    content = read_json(file) if file.exists() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object: copy it again from its source")
    return content
