"""Log-probabilities in the two forms that OpenAI has for them. JSON knows no infinity: -9999.0 stands for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.batch import Alternatives
from model.text.tokenizer import Tokenizer

_LEAST = -9999.0


@dataclass(frozen=True, slots=True)
class Scored:
    """A token with its log-probability, None for a prompt's first, and the likeliest alternatives, best first."""

    token_id: int
    logprob: float | None
    top: Alternatives = ()


class Words:
    """The texts of tokens by themselves, control tokens by their names."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def bytes(self, token_id: int) -> bytes:
        return self._tokenizer.named_bytes(token_id)

    def text(self, token_id: int) -> str:
        return self.bytes(token_id).decode(errors="replace")

    def written(self, token_id: int) -> str:
        """The part that a token has in a text, which is nothing for a control token."""
        known = token_id < self._tokenizer.vocab_size
        return self._tokenizer.token_bytes(token_id).decode(errors="replace") if known else ""

    def joined(self, ids: Sequence[int]) -> str:
        """The text of ids in a row, without control tokens."""
        return self._tokenizer.decode(i for i in ids if i < self._tokenizer.vocab_size)

    def name(self, token_id: int) -> str:
        """The text, or `token_id:N` of a token that is no text by itself, because names must differ."""
        try:
            return self.bytes(token_id).decode() or f"token_id:{token_id}"
        except UnicodeDecodeError:
            return f"token_id:{token_id}"


def chat_logprobs(tokens: Sequence[Scored], words: Words) -> dict[str, Any]:
    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        return {"token": words.text(token_id), "logprob": _number(logprob), "bytes": list(words.bytes(token_id))}

    content = [
        entry(t.token_id, t.logprob if t.logprob is not None else 0.0)
        | {"top_logprobs": [entry(token_id, logprob) for token_id, logprob in t.top]}
        for t in tokens
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(tokens: Sequence[Scored], most: int, words: Words) -> list[dict[str, Any] | None]:
    """As vLLM has them: by id the `most` likeliest and the token itself, with ranks as far as these are known."""

    def entry(token_id: int, logprob: float, rank: int | None) -> dict[str, Any]:
        return {"logprob": _number(logprob), "rank": rank, "decoded_token": words.text(token_id)}

    found: list[dict[str, Any] | None] = []
    for t in tokens:
        ranks = {token_id: rank for rank, (token_id, _) in enumerate(t.top, 1)}
        likeliest = dict(t.top[:most]) | ({} if t.logprob is None else {t.token_id: t.logprob})
        told = {str(i): entry(i, logprob, ranks.get(i)) for i, logprob in likeliest.items()}
        found.append(told or None)
    return found


@dataclass(slots=True)
class CompletionLogprobs:
    """Turns tokens into the lists of completions; offsets count characters from the choice's beginning."""

    words: Words
    offset: int = 0

    def of(self, tokens: Sequence[Scored]) -> dict[str, Any]:
        lists: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for t in tokens:
            text = self.words.written(t.token_id)
            lists["tokens"].append(self.words.name(t.token_id))
            lists["token_logprobs"].append(None if t.logprob is None else _number(t.logprob))
            lists["top_logprobs"].append(None if t.logprob is None else self._top(t))
            lists["text_offset"].append(self.offset)
            self.offset += len(text.removeprefix(" ") if not self.offset else text)
        return lists

    def _top(self, t: Scored) -> dict[str, float]:
        """The alternatives and the token itself; of two with the same text the likelier."""
        found: dict[str, float] = {}
        for token_id, logprob in (*t.top, (t.token_id, t.logprob)):
            name = self.words.name(token_id)
            found[name] = max(found.get(name, _LEAST), _number(logprob if logprob is not None else _LEAST))
        return found


def _number(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else _LEAST
