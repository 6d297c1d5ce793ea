r"""Calls of tools: how models write them, and how they are read out of an output while it grows.

    Mistral v3:  [TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "Xk3vZ0q9A"}]
    Hermes:      <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>

Outputs with tools are kept to these forms from the mark on (model/constraint/calls_grammar.py), so reading is plain.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum

from model.text.tokenizer import Tokenizer

# Stands for the control token of a call in an output's text, where its name could be text that a model repeats.
CALL_MARK = "\U0010fffc"
_IDS = re.compile("[a-zA-Z0-9]{9}")
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_HEAD = re.compile(r'\s*[\[,]?\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\S)')
_NEXT_OF_LIST = re.compile(r'(?:\s*,\s*"id"\s*:\s*"[^"]*")?\s*\}\s*([,\]])')
_NEXT_OF_TAGS = re.compile(r"\s*\}\s*</tool_call>\n?")


class CallSyntax(StrEnum):
    MISTRAL = "mistral"
    HERMES = "hermes"

    @property
    def mark(self) -> str:
        """It begins the calls of an output."""
        return CALL_MARK if self is CallSyntax.MISTRAL else "<tool_call>"

    def mark_id(self, tokenizer: Tokenizer) -> int | None:
        """The control token that begins calls; None where a text does."""
        return tokenizer.id_of("[TOOL_CALLS]") if self is CallSyntax.MISTRAL else None

    def marks(self, tokenizer: Tokenizer) -> dict[int, str]:
        """The texts of tokens of calls in an output, where control tokens have none."""
        if self is CallSyntax.MISTRAL:
            return {i: CALL_MARK for i in (self.mark_id(tokenizer),) if i is not None}
        names = ("<tool_call>", "</tool_call>")
        return {i: name for name in names if (i := tokenizer.id_of(name)) is not None}


MISTRAL, HERMES = CallSyntax.MISTRAL, CallSyntax.HERMES


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of an output's call `index`: the first one has `id` and `name`, the others more of its arguments."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class CallReader:
    """Splits one output into its text and its calls. Not shared between threads."""

    def __init__(self, syntax: CallSyntax, of_output: str) -> None:
        """`of_output` names the output; ids of calls are made of it."""
        self._syntax, self._of_output = syntax, of_output
        self._held, self._state, self.calls = "", _State.TEXT, 0
        self._begun, self._depth, self._quoted, self._escaped = False, 0, False, False

    def push(self, text: str, last: bool = False) -> tuple[str, list[CallPart]]:
        """The text, and the parts of calls, that are known after more of the output; `last`: nothing follows."""
        self._held += text
        said, parts = "", list[CallPart]()
        while (step := self._step(last)) is not None:
            more, part = step
            said += more
            parts += [part] if part is not None else []
        return said, parts

    def _step(self, last: bool) -> tuple[str, CallPart | None] | None:
        """One change of state, and what it gives; None if there must come more first."""
        match self._state:
            case _State.TEXT:
                return self._text(last)
            case _State.HEAD:
                if not (match := _HEAD.match(self._held)):
                    return None
                self._take(match.end())
                self._state, self._depth = _State.ARGUMENTS, 0
                return "", CallPart(self.calls, call_id(self._of_output, self.calls), json.loads(match[1]))
            case _State.ARGUMENTS:
                return self._arguments()
            case _State.NEXT:
                following = _NEXT_OF_LIST if self._syntax is MISTRAL else _NEXT_OF_TAGS
                if not (match := following.match(self._held)):
                    return None
                self._take(match.end())
                ended = _State.TEXT if self._syntax is HERMES else _State.ENDED
                self._state = _State.HEAD if match.lastindex and match[1] == "," else ended
                return "", None
        self._held = ""
        return None

    def _text(self, last: bool) -> tuple[str, CallPart | None] | None:
        """Blanks alone are no text where a call follows or went before: they separate calls."""
        before, mark, _ = self._held.partition(self._syntax.mark)
        kept = 0 if mark or last else _overlap(before, self._syntax.mark)
        said = before[: len(before) - kept]
        if not self._begun and not said.strip():
            if not mark and not last:
                return None
            said = "" if mark or self.calls else said
        self._take(len(before) - kept + len(mark))
        self._begun = (self._begun or bool(said)) and not mark
        if mark:
            self._state = _State.HEAD
        return (said, None) if said or mark else None

    def _arguments(self) -> tuple[str, CallPart | None] | None:
        """Up to the end of one JSON object."""
        for end, character in enumerate(self._held, start=1):
            if self._quoted:
                self._quoted = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    part = CallPart(self.calls, arguments=self._take(end))
                    self._state, self.calls = _State.NEXT, self.calls + 1
                    return "", part
        return ("", CallPart(self.calls, arguments=self._take(len(self._held)))) if self._held else None

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        return taken


class _State(StrEnum):
    TEXT = "text"
    HEAD = "head"
    ARGUMENTS = "arguments"
    NEXT = "next"
    ENDED = "ended"


def call_id(of_output: str, index: int) -> str:
    """Nine letters and digits, as Mistral's templates demand; the same for the same call."""
    number = int.from_bytes(hashlib.sha256(f"{of_output}/{index}".encode()).digest()[:8], "big")
    letters = []
    for _ in range(9):
        number, letter = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(letters)


def nine(foreign: str) -> str:
    """An id of another server's as one that Mistral's templates take; one that they take stays as it is."""
    return foreign if _IDS.fullmatch(foreign) else call_id(foreign, 0)


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins the mark."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
