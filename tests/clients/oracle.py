"""Transformers' scores of texts, to which an evaluation harness is held."""

import json
import random
from pathlib import Path
from typing import Any

import sentencepiece

from tests.oracle import Oracle

ITEMS, GENERATED = 200, 24
_WORDS = ("wind", "north", "rain", "over", "hill", "the", "a", "cold", "37", "sea;", "(but)", "Über", "naïve", "far\n")


def write_expected(checkpoint: Path, file: Path) -> None:
    """`scored`: contexts and continuations with their log-likelihoods, and whether they are the greedy ones, as every
    other one is. `generated`: contexts, what is put out for them, and what ends it. `first`: a text without a context.
    """
    writer = _Writer(checkpoint)
    scored = [writer.scored(greedy=bool(number % 2)) for number in range(ITEMS)]
    generated = [writer.generated() for _ in range(GENERATED)]
    file.write_text(json.dumps({"scored": scored, "generated": generated, "first": writer.first()}))


class _Writer:
    def __init__(self, checkpoint: Path) -> None:
        self._pieces = sentencepiece.SentencePieceProcessor(str(checkpoint / "tokenizer.model"))
        self._oracle, self._rng = Oracle(checkpoint), random.Random(2026)

    def scored(self, greedy: bool) -> dict[str, Any]:
        while True:
            context = self._words(3, 60)
            continuation = self._greedy(context) if greedy else f" {self._words(1, 12)}"
            ids, prompt = self._pieces.encode(context + continuation), self._pieces.encode(context)
            item = self._score(ids, len(prompt)) if ids[: len(prompt)] == prompt else {}
            if item and item["greedy"] is greedy:
                return {"context": context, "continuation": continuation} | item

    def generated(self) -> dict[str, Any]:
        """Some characters of what would come end it. Half of one would be told as something else."""
        while True:
            prompt = self._pieces.encode(context := self._words(3, 30))
            text = self._text(prompt, self._oracle.greedy(prompt, 20))
            until = text[12:15]
            if len(text) > 16 and "\ufffd" not in text:
                return {"context": context, "until": until, "text": text.partition(until)[0]}

    def first(self) -> dict[str, Any]:
        """Its context is the model's first token."""
        continuation = self._words(4, 8)
        return {"continuation": continuation} | self._score([1, *self._pieces.encode(continuation)], 1)

    def _greedy(self, context: str) -> str:
        prompt = self._pieces.encode(context)
        return self._text(prompt, self._oracle.greedy(prompt, self._rng.randint(1, 3)))

    def _text(self, prompt: list[int], output: list[int]) -> str:
        return str(self._pieces.decode(prompt + output))[len(self._pieces.decode(prompt)) :]

    def _score(self, ids: list[int], prompt: int) -> dict[str, Any]:
        logprobs_TV = self._oracle.logprobs(ids)
        places = range(prompt, len(ids))
        total = sum(float(logprobs_TV[t - 1, ids[t]]) for t in places)
        return {"logprob": total, "greedy": all(int(logprobs_TV[t - 1].argmax()) == ids[t] for t in places)}

    def _words(self, least: int, most: int) -> str:
        return " ".join(self._rng.choice(_WORDS) for _ in range(self._rng.randint(least, most))).strip()
