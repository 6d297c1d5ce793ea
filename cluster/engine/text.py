"""Turns the tokens of one output into text pieces, and finds its stop strings."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.engine.events import Finish, FinishReason, Sampled
from model.batch import SampledToken
from model.chat.calls import CallPart, CallReader
from model.text.detokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """The part that one token adds to an output. `text` may lag behind the tokens: half a character and what may become
    a stop string are held back. `calls` are the parts of calls of tools; they are no part of the text.
    """

    text: str
    token: SampledToken
    finish: Finish | None
    calls: tuple[CallPart, ...] = ()


@dataclass(frozen=True, slots=True)
class StopRules:
    """When text ends an output. `include_stop` leaves what was matched in the text."""

    strings: tuple[str, ...] = ()
    include_stop: bool = False
    min_tokens: int = 0


class OutputText:
    def __init__(self, detokenizer: Detokenizer, rules: StopRules, calls: CallReader | None = None) -> None:
        """`calls` reads calls of tools, where the request has tools."""
        self._detokenizer, self._rules, self._calls = detokenizer, rules, calls
        self._held = ""  # decoded but not yet given out: it may begin a stop string
        self._tokens = 0

    def push(self, event: Sampled) -> Piece:
        """Add a token. The piece's `finish` is the output's: the engine's own, or a stop string found here."""
        piece = self._decoded(event)
        if self._calls is None:
            return piece
        text, calls = self._calls.push(piece.text, last=piece.finish is not None)
        finish = piece.finish
        if finish is not None and finish.reason is FinishReason.STOP and self._calls.calls:
            finish = replace(finish, reason=FinishReason.TOOL_CALLS)
        return Piece(text, piece.token, finish, tuple(calls))

    def _decoded(self, event: Sampled) -> Piece:
        self._tokens += 1
        stopped = event.finish is not None and event.finish.stop_token_id is not None
        if not stopped or self._rules.include_stop:
            with contextlib.suppress(ValueError):  # an id past the vocabulary, which is padded to a round size: no text
                self._held += self._detokenizer.push(event.token.token_id)
        if event.finish is not None:
            self._held += self._detokenizer.flush()
        if self._tokens > self._rules.min_tokens and (match := _first_match(self._held, self._rules.strings)):
            begin, stop = match
            end = begin + len(stop) if self._rules.include_stop else begin
            return Piece(self._take(end), event.token, Finish(FinishReason.STOP, stop=stop))
        keep = 0 if event.finish is not None else _overlap(self._held, self._rules.strings)
        return Piece(self._take(len(self._held) - keep), event.token, event.finish)

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text


def _first_match(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the earliest stop string begins, the longest of those that begin there, or None."""
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    return min(found, key=lambda match: (match[0], -len(match[1])), default=None)


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins a stop string. Example: "no U" and "User:" give 1."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])), default=0
    )
