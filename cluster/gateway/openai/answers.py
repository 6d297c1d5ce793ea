"""Pieces of outputs as OpenAI's objects: whole answers, and the chunks of a stream."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import Any

from cluster.engine.events import Finish, FinishReason
from cluster.engine.generation import Generation, GenerationRequest
from cluster.engine.text import Piece
from cluster.gateway.openai.logprobs import CompletionLogprobs, Scored, Words, chat_logprobs, prompt_logprobs
from cluster.gateway.openai.requests import Wanted
from cluster.gateway.openai.tools import call_fragment, whole_calls
from model.chat.calls import CallPart

_FINISH = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.TOOL_CALLS: "tool_calls"}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a choice: what several pieces add to it."""

    text: str
    tokens: list[Scored]
    finish: str | None
    calls: tuple[CallPart, ...] = ()
    stop: str | int | None = None  # what the client's own stops found


def scores_of(wanted: GenerationRequest) -> int:
    """The most log-probabilities that its answer can have."""
    sequence = wanted.sequence
    outputs = sequence.max_tokens * (sequence.sampling.logprobs + 1) * wanted.n
    return outputs + len(sequence.prompt_ids) * (sequence.prompt_logprobs + 1) * wanted.n


class Answer:
    """All choices of one request, in the order of its prompts, as `chunks` of a stream or as a `whole`."""

    def __init__(self, wanted: Wanted, generations: Sequence[Generation], words: Words, about: Json) -> None:
        """`about` has `id`, `created` and `model`."""
        self._wanted, self._generations, self._words = wanted, generations, words
        kind = "chat.completion" if wanted.chat else "text_completion"
        self._about = about | {"object": kind}
        self._chunk_about = about | {"object": f"{kind}.chunk" if wanted.chat else kind}
        self._offsets = [CompletionLogprobs(words) for _ in range(len(generations) * wanted.n)]
        self._begun = [False] * len(self._offsets)

    def parts(self, prompt: int, pieces: Sequence[tuple[int, Piece]]) -> int:
        """About how many texts and numbers an answer has of these pieces, and of their prompt if it begins with it."""
        sequence = self._generations[prompt].request.sequence
        echoed = (
            0 if self._begun[prompt * self._wanted.n] else len(sequence.prompt_ids) * (sequence.prompt_logprobs + 1)
        )
        return len(pieces) * (sequence.sampling.logprobs + 2) + echoed * self._wanted.n

    # ---- streams ----

    def chunks(self, prompt: int, pieces: Sequence[tuple[int, Piece]]) -> list[Json]:
        """The chunks of a stream for what has come of a prompt's outputs: few for each."""
        found = []
        for output in dict.fromkeys(index for index, _ in pieces):
            choice = prompt * self._wanted.n + output
            come = [piece for index, piece in pieces if index == output]
            opening = not self._begun[choice]
            self._begun[choice] = True
            if self._wanted.chat:
                found += self._chat_chunks(choice, self._in_order(come), opening)
                continue
            echo = self._prompt_part(prompt) if opening else None
            found.append(self._chunk(self._completion(choice, self._part(come), echo)))
        return found

    def last_chunk(self) -> Json | None:
        """A stream's last one, if the client wants usage."""
        return self._chunk_about | {"choices": [], "usage": self.usage()} if self._wanted.usage else None

    def _in_order(self, pieces: Sequence[Piece]) -> Iterator[Part]:
        """Text and calls as they follow each other. Of a piece that has both, the rest of a call comes before its text,
        and a call that begins after it.
        """
        for calling, some in groupby(pieces, lambda piece: bool(piece.calls)):
            if not calling:
                yield self._part(list(some))
                continue
            for piece in some:
                part = self._part([piece])
                rest = tuple(takewhile(lambda call: not call.id, part.calls))
                yield Part("", [], None, rest)
                yield Part(part.text, part.tokens, None)
                yield replace(part, text="", tokens=[], calls=part.calls[len(rest) :])

    def _chat_chunks(self, choice: int, parts: Iterable[Part], opening: bool) -> list[Json]:
        """The role in a chunk of its own, and what ended the choice in another: clients join what is told twice."""
        found: list[Json] = []
        if opening:
            found.append({"index": choice, "delta": {"role": "assistant", "content": ""}})
        for part in parts:
            if part.text or part.tokens:
                logprobs = chat_logprobs(part.tokens, self._words) if self._wanted.logprobs else None
                found.append({"index": choice, "delta": {"content": part.text}, "logprobs": logprobs})
            found += [{"index": choice, "delta": {"tool_calls": [call_fragment(call)]}} for call in part.calls]
            if part.finish:
                found.append({"index": choice, "delta": {}, "finish_reason": part.finish, "stop_reason": part.stop})
        return [self._chunk({"logprobs": None, "finish_reason": None} | one) for one in found]

    def _chunk(self, choice: Json) -> Json:
        chunk = self._chunk_about | {"choices": [choice]}
        if self._wanted.running_usage:
            return chunk | {"usage": self.usage()}
        return chunk | {"usage": None} if self._wanted.usage else chunk

    # ---- whole answers ----

    def whole(self, pieces: Sequence[Sequence[tuple[int, Piece]]]) -> Json:
        """The answer, given all pieces of each prompt."""
        choices = []
        for prompt, of_prompt in enumerate(pieces):
            for output in range(self._wanted.n):
                part = self._part([piece for index, piece in of_prompt if index == output])
                choice = prompt * self._wanted.n + output
                if self._wanted.chat:
                    logprobs = chat_logprobs(part.tokens, self._words) if self._wanted.logprobs else None
                    message: Json = {"role": "assistant", "content": part.text, "refusal": None}
                    if part.calls:
                        message |= {"content": part.text or None, "tool_calls": whole_calls(part.calls)}
                    one = {"index": choice, "message": message, "logprobs": logprobs}
                    one |= {"finish_reason": part.finish, "stop_reason": part.stop}
                else:
                    one = self._completion(choice, part, self._prompt_part(prompt)) | self._prompt_scores(prompt)
                choices.append(one)
        scores = self._prompt_scores(0) if self._wanted.chat else {}
        return self._about | {"choices": choices, "usage": self.usage()} | scores

    # ---- both ----

    def usage(self) -> Json:
        """So far."""
        prompt = sum(len(g.request.sequence.prompt_ids) for g in self._generations)
        completion = sum(g.progress.completion_tokens for g in self._generations)
        cached = sum(g.progress.cached_prompt_tokens for g in self._generations)
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return counts | {"prompt_tokens_details": {"cached_tokens": cached}}

    @property
    def retries(self) -> int:
        """Calls of experts that were sent again for it."""
        return sum(g.progress.retries for g in self._generations)

    def _completion(self, choice: int, part: Part, echo: Part | None) -> Json:
        text, tokens = part.text, part.tokens
        if echo is not None and self._wanted.echo:
            text, tokens = echo.text + text, echo.tokens + tokens
        logprobs = self._offsets[choice].of(tokens) if self._wanted.logprobs else None
        about = {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": part.finish}
        return about | ({"stop_reason": part.stop} if part.finish else {})

    def _part(self, pieces: Sequence[Piece]) -> Part:
        scored = [Scored(t.token_id, t.logprob, t.top) for t in (p.token for p in pieces) if t.logprob is not None]
        finish = next((piece.finish for piece in pieces if piece.finish), None)
        calls = tuple(call for piece in pieces for call in piece.calls)
        text, reason = "".join(piece.text for piece in pieces), _FINISH[finish.reason] if finish else None
        return Part(text, scored, reason, calls, self._matched(finish) if finish else None)

    def _matched(self, finish: Finish) -> str | int | None:
        """Of the client's own stops, as vLLM tells it; an end-of-text token is none of them."""
        own = self._wanted.requests[0].stopping.stop_token_ids
        return finish.stop or (finish.stop_token_id if finish.stop_token_id in own else None)

    def _prompt_part(self, prompt: int) -> Part:
        """A prompt as the beginning of a choice; its text is the client's own, if it sent one."""
        if not self._wanted.echo:
            return Part("", [], None)
        sequence, given = self._generations[prompt].request.sequence, self._wanted.requests[prompt].prompt
        most = max(0, sequence.sampling.logprobs)  # of prompts more alternatives may be known
        tokens = [Scored(t.token_id, t.logprob, t.top[:most]) for t in self._scored(prompt)]
        text = given.text if given.HasField("text") else self._words.joined(sequence.prompt_ids)
        return Part(text, tokens, None)

    def _prompt_scores(self, prompt: int) -> Json:
        most = self._wanted.prompt_scores
        return {} if most < 0 else {"prompt_logprobs": prompt_logprobs(self._scored(prompt), most, self._words)}

    def _scored(self, prompt: int) -> list[Scored]:
        """The tokens of a prompt, the first without a score; none if they have not been scored."""
        generation = self._generations[prompt]
        first, *others = generation.request.sequence.prompt_ids
        scores = generation.progress.prompt_scores
        tokens = [Scored(first, None), *(Scored(i, *score) for i, score in zip(others, scores, strict=False))]
        return tokens if scores or not others else []
