"""Turns the tokens of one output into text pieces, and finds its stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.engine.events import Finish, FinishReason, Sampled
from model.batch import SampledToken
from model.text.detokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds to an output. `text` may lag behind the tokens: half a character and what may become
    a stop string are held back.
    """

    text: str
    token: SampledToken
    finish: Finish | None


@dataclass(frozen=True, slots=True)
class StopRules:
    """When text ends an output. `include_stop` leaves what was matched in the text."""

    strings: tuple[str, ...] = ()
    include_stop: bool = False
    min_tokens: int = 0


class OutputText:
    """The text of one output as it grows."""

    def __init__(self, detokenizer: Detokenizer, rules: StopRules) -> None:
        self._detokenizer, self._rules = detokenizer, rules
        self._held = ""  # decoded but not yet given out: it may begin a stop string
        self._tokens = 0

    def push(self, event: Sampled) -> Piece:
        """Add a token. The piece's `finish` is the output's: the engine's own, or a stop string found here."""
        self._tokens += 1
        stopped = event.finish is not None and event.finish.stop_token_id is not None
        if not stopped or self._rules.include_stop:
            self._held += self._decoded(event.token.token_id)
        if event.finish is not None:
            self._held += self._detokenizer.flush()
        if self._tokens > self._rules.min_tokens:
            match = _first_match(self._held, self._rules.strings)
            if match is not None:
                begin, stop = match
                end = begin + len(stop) if self._rules.include_stop else begin
                return Piece(self._take(end), event.token, Finish(FinishReason.STOP, stop=stop))
        keep = 0 if event.finish is not None else _overlap(self._held, self._rules.strings)
        return Piece(self._take(len(self._held) - keep), event.token, event.finish)

    def _decoded(self, token_id: int) -> str:
        try:
            return self._detokenizer.push(token_id)
        except ValueError:  # past the vocabulary: embeddings are padded to round sizes, and such ids mean nothing
            return ""

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text


def _first_match(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the earliest stop string begins, the longest of those that begin there, or None."""
    found = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
    if not found:
        return None
    begin, _, stop = min(found)
    return begin, stop


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins a stop string. Example: "no U" and "User:" give 1."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest
