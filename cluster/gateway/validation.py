"""Turns a GenerateRequest into what the engine runs, or into all of its violations at once."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from cluster.engine.answer_size import MOST_BYTES, AnswerSize
from cluster.engine.generation import GenerationRequest
from cluster.engine.served_model import ServedModel
from cluster.engine.text import StopRules
from cluster.gateway.errors import Violation, good_request_id, invalid
from cluster.policy.scheduling.limits import Limits
from cluster.settings.request_options import SAMPLING_RANGES
from model.batch import Constraint, ConstraintKind, SamplingParams
from model.constraint.grammar import Constraints
from model.text.chat import ChatMessage, Role
from protos.eightwinds.v1 import inference_pb2 as pb

T = TypeVar("T")

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1000
MAX_LOGPROBS = 20
MAX_NAME = 256
MAX_CHAT_MESSAGES = 4096
_MAX_KEPT = 1000  # violations; a status names fewer

_ROLES = {pb.ROLE_SYSTEM: Role.SYSTEM, pb.ROLE_USER: Role.USER, pb.ROLE_ASSISTANT: Role.ASSISTANT}


class Validator:
    """Checks requests against the served model and, once it is known, the KV cache."""

    def __init__(self, served: ServedModel) -> None:
        self._served = served
        self._vocab = served.checkpoint.config.vocab_size

    @cached_property
    def _constraints(self) -> Constraints:
        """Made with the first request that has one: they hold a copy of the vocabulary."""
        return Constraints(self._served.tokenizer, self._vocab, self._served.eos_ids)

    @cached_property
    def _answer_size(self) -> AnswerSize:
        tokenizer = self._served.tokenizer
        return AnswerSize(max(len(tokenizer.token_bytes(i, special_tokens=True)) for i in range(tokenizer.vocab_size)))

    def generation(
        self,
        request: pb.GenerateRequest,
        limits: Limits,
        caller: str = "",
        *,
        whole: bool = False,
        highest_priority: int = 100,
    ) -> GenerationRequest:
        """The request with every default filled in; raises ApiError with all violations.

        An authenticated `caller` is who it counts for, whatever `user` says: nobody gets more by naming many users.
        `whole`: the answer is to be one message, which must not become larger than clients take.
        """
        found = _Violations()
        prompt_ids = self._prompt(request.prompt, found)
        stopping, context = request.stopping, min(self._served.context_length, limits.most_tokens)
        explicit = stopping.max_tokens if stopping.HasField("max_tokens") else None
        max_tokens = explicit if explicit is not None else max(1, context - len(prompt_ids))
        found.unless(max_tokens >= 1, "stopping.max_tokens", "must be at least 1; leave it out for the whole context")
        self._stopping(stopping, max_tokens, found)
        sampling = self._sampling(request.sampling, found)
        self._output(request.output, found)
        constraint = None
        if request.HasField("constraint"):
            constraint = self._constraint(request.constraint, stopping, found)
        n = request.n if request.HasField("n") else 1
        found.unless(1 <= n <= 8, "n", "must be 1 to 8")
        most = f"{highest_priority}, the highest of this token" if highest_priority < 100 else "100"
        found.unless(-100 <= request.priority <= highest_priority, "priority", f"must be -100 to {most}")
        found.unless(len(request.user) <= MAX_NAME, "user", f"must have at most {MAX_NAME} characters")
        named = not request.request_id or good_request_id(request.request_id)
        found.unless(named, "request_id", "must have at most 256 characters, of printable ASCII")
        found.raise_any()
        max_tokens = self._fit(len(prompt_ids), max_tokens, explicit is not None, limits)
        if whole:
            max_tokens = self._answerable(request.output, len(prompt_ids), n, max_tokens, explicit is not None)
        stop_ids = frozenset(stopping.stop_token_ids)
        if not stopping.ignore_eos:
            stop_ids |= frozenset(self._served.eos_ids)
        sampling = replace(
            sampling,
            min_tokens=stopping.min_tokens,
            banned=tuple(sorted(stop_ids)),
            logprobs=request.output.logprobs if request.output.HasField("logprobs") else -1,
            constraint=constraint,
        )
        return GenerationRequest(
            request_id=request.request_id,
            prompt_ids=tuple(prompt_ids),
            sampling=sampling,
            max_tokens=max_tokens,
            stop_ids=stop_ids,
            rules=StopRules(tuple(stopping.stop), stopping.include_stop, stopping.min_tokens),
            n=n,
            priority=request.priority,
            special_tokens=request.output.special_tokens,
            trace=request.output.trace,
            client=caller or request.user,
            tenant=caller,
            prompt_logprobs=request.output.prompt_logprobs if request.output.HasField("prompt_logprobs") else -1,
        )

    def prompt_ids(self, prompt: pb.Prompt) -> list[int]:
        """The ids of a prompt alone; raises ApiError."""
        found = _Violations()
        ids = self._prompt(prompt, found)
        found.raise_any()
        return ids

    def token_ids(self, ids: list[int]) -> list[int]:
        """Ids to detokenize; raises ApiError."""
        found = _Violations()
        self._ids(ids, "token_ids", self._vocab, found)
        found.raise_any()
        return ids

    def _prompt(self, prompt: pb.Prompt, found: "_Violations") -> list[int]:
        match prompt.WhichOneof("prompt"):
            case "text":
                return found.attempt("prompt.text", lambda: self._served.tokenizer.encode(prompt.text), [])
            case "token_ids":
                ids = list(prompt.token_ids.ids)
                found.unless(bool(ids), "prompt.token_ids.ids", "must name at least one token")
                self._ids(ids, "prompt.token_ids.ids", self._vocab, found)
                return ids
            case "chat":
                return self._chat(prompt.chat, found)
        found.add("prompt", "must be one of text, token_ids, chat")
        return []

    def _chat(self, chat: pb.Chat, found: "_Violations") -> list[int]:
        if not self._served.chat:
            why = self._served.chat_refusal or "has no chat template"
            found.add("prompt.chat", f"model {self._served.id!r} {why}; send prompt.text")
            return []
        before = len(found)
        if len(chat.messages) > MAX_CHAT_MESSAGES:
            found.add("prompt.chat.messages", f"must hold at most {MAX_CHAT_MESSAGES} messages")
            return []
        for i, m in enumerate(chat.messages):
            found.unless(
                m.role in _ROLES, f"prompt.chat.messages[{i}].role", "must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT"
            )
        if len(found) > before:
            return []
        return found.attempt(
            "prompt.chat.messages",
            lambda: self._served.tokenizer.encode_chat(
                [ChatMessage(_ROLES[m.role], m.content) for m in chat.messages],
                continue_final_message=chat.continue_final_message,
            ),
            [],
        )

    def _ids(self, ids: list[int], path: str, limit: int, found: "_Violations") -> None:
        bad = next((i for i, token in enumerate(ids) if not 0 <= token < limit), None)
        if bad is not None:
            found.add(f"{path}[{bad}]", f"is {ids[bad]}, but ids are 0 to {limit - 1}")

    def _sampling(self, given: pb.Sampling, found: "_Violations") -> SamplingParams:
        default = self._served.default_sampling

        def value(name: str) -> Any:
            return getattr(given, name) if given.HasField(name) else getattr(default, name)  # type: ignore[arg-type]

        for name, good, text in SAMPLING_RANGES:
            found.unless(good(value(name)), f"sampling.{name}", text)
        for token, bias in given.logit_bias.items():
            path = f"sampling.logit_bias[{token}]"
            found.unless(0 <= token < self._vocab, path, f"ids are 0 to {self._vocab - 1}")
            found.unless(-100 <= bias <= 100, path, "must be -100 to 100")
        return SamplingParams(
            **{name: value(name) for name, *_ in SAMPLING_RANGES},
            seed=given.seed if given.HasField("seed") else secrets.randbits(63),
            logit_bias=tuple(sorted(given.logit_bias.items())),
        )

    def _stopping(self, stopping: pb.Stopping, max_tokens: int, found: "_Violations") -> None:
        found.unless(stopping.min_tokens >= 0, "stopping.min_tokens", "must be at least 0")
        if max_tokens >= 1:
            found.unless(stopping.min_tokens <= max_tokens, "stopping.min_tokens", "must not exceed max_tokens")
        found.unless(
            len(stopping.stop) <= MAX_STOP_STRINGS, "stopping.stop", f"must hold at most {MAX_STOP_STRINGS} strings"
        )
        for i, text in enumerate(stopping.stop):
            found.unless(
                0 < len(text) <= MAX_STOP_LENGTH, f"stopping.stop[{i}]", f"must have 1 to {MAX_STOP_LENGTH} characters"
            )
        self._ids(list(stopping.stop_token_ids), "stopping.stop_token_ids", self._vocab, found)

    def _output(self, output: pb.OutputOptions, found: "_Violations") -> None:
        found.unless(0 <= output.logprobs <= MAX_LOGPROBS, "output.logprobs", f"must be 0 to {MAX_LOGPROBS}")
        asked = output.prompt_logprobs
        found.unless(0 <= asked <= MAX_LOGPROBS, "output.prompt_logprobs", f"must be 0 to {MAX_LOGPROBS}")

    def _constraint(self, given: pb.Constraint, stopping: pb.Stopping, found: "_Violations") -> Constraint | None:
        match given.WhichOneof("constraint"):
            case "json_schema":
                constraint = Constraint(ConstraintKind.JSON_SCHEMA, given.json_schema)
            case "regex":
                constraint = Constraint(ConstraintKind.REGEX, given.regex)
            case _:
                found.add("constraint", "must be one of json_schema, regex")
                return None
        off = "with a constraint, whose text has an end of its own"
        found.unless(not stopping.ignore_eos, "stopping.ignore_eos", f"must be off {off}")
        found.unless(not stopping.stop, "stopping.stop", f"must be empty {off}")
        found.unless(not stopping.stop_token_ids, "stopping.stop_token_ids", f"must be empty {off}")
        found.attempt(f"constraint.{constraint.kind.value}", lambda: self._constraints.check(constraint), None)
        return constraint

    def _fit(self, prompt: int, max_tokens: int, explicit: bool, limits: Limits) -> int:
        """max_tokens, cut to what can be served where the client named none; raises ApiError if it cannot run."""
        model = self._served.context_length
        context = min(model, limits.most_tokens)
        metadata = {"promptTokens": str(prompt), "contextLength": str(context)}
        if prompt + (max_tokens if explicit else 1) <= context:
            return min(max_tokens, context - prompt)
        wanted = f"prompt ({prompt}) and max_tokens ({max_tokens}) exceed"
        if context < model:
            text = f"{wanted} the whole KV cache of {context} tokens; more needs a server with more kv.memory_bytes"
            if not explicit:
                text = (
                    f"has {prompt} tokens, which leave none of the whole KV cache of {context} tokens (kv.memory_bytes)"
                )
            raise invalid([Violation("stopping.max_tokens" if explicit else "prompt", text)], metadata)
        if prompt >= context:
            text = f"has {prompt} tokens; with at least one to put out the context holds {context}"
            raise invalid([Violation("prompt", text)], metadata)
        raise invalid([Violation("stopping.max_tokens", f"{wanted} the context of {context}")], metadata)

    def _answerable(self, output: pb.OutputOptions, prompt: int, n: int, max_tokens: int, explicit: bool) -> int:
        """max_tokens, cut to what fits into one message where the client named none; raises ApiError if it does not."""
        size, prompt_bytes = self._answer_size, 0
        if output.HasField("prompt_logprobs"):
            prompt_bytes = prompt * size.token(output.prompt_logprobs)
        each = size.token(output.logprobs if output.HasField("logprobs") else -1, output.token_ids)
        most = size.fitting(n, prompt_bytes, each)
        if max_tokens <= most or (most >= 1 and not explicit):
            return min(max_tokens, most)
        path = "stopping.max_tokens" if most >= 1 else "output.prompt_logprobs" if prompt_bytes else "n"
        fits = f"{most} fit" if most >= 1 else "it does not fit"
        text = f"of one answer of {MOST_BYTES} bytes {fits}; lower it, n or output.logprobs, or use GenerateStream"
        raise invalid([Violation(path, text)])


class _Violations:
    """Gathers violations."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, path: str, text: str) -> None:
        if len(self._found) < _MAX_KEPT:
            self._found.append(Violation(path, text))

    def unless(self, good: bool, path: str, text: str) -> None:
        if not good:
            self.add(path, text)

    def attempt(self, path: str, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except ValueError as error:  # written for the caller, by the tokenizer or the constraints
            self.add(path, str(error))
            return otherwise

    def raise_any(self) -> None:
        if self._found:
            raise invalid(self._found)
