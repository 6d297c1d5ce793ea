"""Turns a GenerateRequest into what the engine runs, or into all of its violations at once."""

import secrets
from functools import cached_property, partial
from typing import Any

from cluster.engine.generation import GenerationRequest
from cluster.engine.served_model import ServedModel
from cluster.engine.text import StopRules
from cluster.gateway.auth import ANYBODY, MOST_PRIORITY, Caller
from cluster.gateway.conversations import call_rules
from cluster.gateway.errors import Violations
from cluster.gateway.lengths import context, in_context, in_message
from cluster.gateway.prompts import prompt_ids
from cluster.policy.scheduling.limits import Limits
from cluster.policy.scheduling.sequence import SequenceRequest
from cluster.settings.request_options import SAMPLING_RANGES
from model.batch import Constraint, ConstraintKind, SamplingParams
from model.constraint.calls_grammar import CallRules
from model.constraint.grammar import Constraints
from protos.eightwinds.v1 import inference_pb2 as pb

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1000
MAX_LOGPROBS = 20
MAX_NAME = 256


class Validator:
    def __init__(self, served: ServedModel) -> None:
        self._served, self._vocab = served, served.checkpoint.config.vocab_size

    @cached_property
    def _constraints(self) -> Constraints:
        """Made with the first request that has one, because they hold a copy of the vocabulary."""
        return Constraints(self._served.tokenizer, self._vocab, self._served.eos_ids)

    @cached_property
    def _longest_piece(self) -> int:
        tokenizer = self._served.tokenizer
        return max(len(tokenizer.token_bytes(i, special_tokens=True)) for i in range(tokenizer.vocab_size))

    def generation(
        self, request: pb.GenerateRequest, limits: Limits, caller: Caller = ANYBODY, *, whole: bool = False
    ) -> GenerationRequest:
        """The request with every default filled in; raises ApiError with all violations. It counts for a named caller
        whatever `user` says, so that naming many users brings no more. `whole`: the answer is to be one message, which
        must not become larger than clients take.
        """
        found, stopping, output = Violations(), request.stopping, request.output
        ids = prompt_ids(self._served, request.prompt, found)
        empty = not ids and not len(found)
        found.unless(not empty, "prompt.text", "must not be empty: nothing is put in front of it")
        asked = stopping.max_tokens if stopping.HasField("max_tokens") else None
        max_tokens = max(1, context(self._served, limits) - len(ids)) if asked is None else asked
        self._check_stopping(stopping, max_tokens, found)
        parameters = self._parameters(request.sampling, found)
        for name, alternatives in (("logprobs", output.logprobs), ("prompt_logprobs", output.prompt_logprobs)):
            found.unless(0 <= alternatives <= MAX_LOGPROBS, f"output.{name}", f"must be 0 to {MAX_LOGPROBS}")
        rules = call_rules(self._served, request.prompt.chat, found)
        constraint = self._constraint(request, rules, found)
        n = request.n if request.HasField("n") else 1
        found.unless(1 <= n <= 8, "n", "must be 1 to 8")
        highest = caller.highest_priority
        most = f"{highest}, the highest of this token" if highest < MOST_PRIORITY else "100"
        found.unless(-100 <= request.priority <= highest, "priority", f"must be -100 to {most}")
        found.unless(len(request.user) <= MAX_NAME, "user", f"must have at most {MAX_NAME} characters")
        named = not request.request_id or good_request_id(request.request_id)
        found.unless(named, "request_id", "must have at most 256 characters, of printable ASCII")
        found.raise_any()
        max_tokens = in_context(self._served, limits, len(ids), asked)
        if whole:
            max_tokens = in_message(self._longest_piece, output, len(ids), n, max_tokens, asked)
        stop_ids = frozenset(stopping.stop_token_ids)
        if not stopping.ignore_eos:
            stop_ids |= frozenset(self._served.eos_ids)
        return GenerationRequest(
            request_id=request.request_id,
            sequence=SequenceRequest(
                prompt_ids=tuple(ids),
                sampling=SamplingParams(
                    **parameters,
                    seed=request.sampling.seed if request.sampling.HasField("seed") else secrets.randbits(63),
                    logit_bias=tuple(sorted(request.sampling.logit_bias.items())),
                    min_tokens=stopping.min_tokens,
                    banned=tuple(sorted(stop_ids)),
                    logprobs=output.logprobs if output.HasField("logprobs") else -1,
                    constraint=constraint,
                ),
                max_tokens=max_tokens,
                stop_ids=stop_ids,
                priority=request.priority,
                routing=output.trace,
                client=caller.name or request.user,
                tenant=caller.name,
                prompt_logprobs=output.prompt_logprobs if output.HasField("prompt_logprobs") else -1,
            ),
            rules=StopRules(tuple(stopping.stop), stopping.include_stop, stopping.min_tokens),
            n=n,
            special_tokens=output.special_tokens,
            calls=rules.syntax if rules else None,
        )

    def _parameters(self, given: pb.Sampling, found: Violations) -> dict[str, Any]:
        """The sampling parameters that have a range, by name."""
        values: dict[str, Any] = {}
        for name, good, text in SAMPLING_RANGES:
            source = given if given.HasField(name) else self._served.default_sampling  # type: ignore[arg-type]
            values[name] = getattr(source, name)
            found.unless(good(values[name]), f"sampling.{name}", text)
        for token, bias in given.logit_bias.items():
            path = f"sampling.logit_bias[{token}]"
            found.unless(0 <= token < self._vocab, path, f"ids are 0 to {self._vocab - 1}")
            found.unless(-100 <= bias <= 100, path, "must be -100 to 100")
        return values

    def _check_stopping(self, stopping: pb.Stopping, max_tokens: int, found: Violations) -> None:
        found.unless(max_tokens >= 1, "stopping.max_tokens", "must be at least 1; leave it out for the whole context")
        found.unless(stopping.min_tokens >= 0, "stopping.min_tokens", "must be at least 0")
        fits = stopping.min_tokens <= max_tokens or max_tokens < 1
        found.unless(fits, "stopping.min_tokens", "must not exceed max_tokens")
        few = len(stopping.stop) <= MAX_STOP_STRINGS
        found.unless(few, "stopping.stop", f"must hold at most {MAX_STOP_STRINGS} strings")
        for i, text in enumerate(stopping.stop):
            good = 0 < len(text) <= MAX_STOP_LENGTH
            found.unless(good, f"stopping.stop[{i}]", f"must have 1 to {MAX_STOP_LENGTH} characters")
        found.ids(list(stopping.stop_token_ids), "stopping.stop_token_ids", self._vocab)

    def _constraint(self, request: pb.GenerateRequest, rules: CallRules | None, found: Violations) -> Constraint | None:
        """The constraint of the text: the client's own, or that of the tools that it may call."""
        stopping, given = request.stopping, request.constraint
        if rules is not None:
            found.unless(not request.HasField("constraint"), "constraint", "must be left out with tools")
            found.unless(not stopping.ignore_eos, "stopping.ignore_eos", "must be off with tools")
            self._check_calls(request.prompt.chat, rules, found)
            return rules.constraint()
        if not request.HasField("constraint"):
            return None
        kind = given.WhichOneof("constraint")
        if kind is None:
            found.add("constraint", "must be one of json_schema, regex")
            return None
        constraint = Constraint(ConstraintKind(kind), getattr(given, kind))
        off = "with a constraint, whose text has an end of its own"
        found.unless(not stopping.ignore_eos, "stopping.ignore_eos", f"must be off {off}")
        found.unless(not stopping.stop, "stopping.stop", f"must be empty {off}")
        found.unless(not stopping.stop_token_ids, "stopping.stop_token_ids", f"must be empty {off}")
        found.attempt(f"constraint.{kind}", lambda: self._constraints.check(constraint), None)
        return constraint

    def _check_calls(self, chat: pb.Chat, rules: CallRules, found: Violations) -> None:
        """Together first, because that is usually all; apart where it fails, so that the tool is named."""
        try:
            self._constraints.check(rules.constraint())
        except ValueError as error:
            before = len(found)
            for i, tool in enumerate(chat.tools):
                schema = Constraint(ConstraintKind.JSON_SCHEMA, tool.parameters or "{}")
                found.attempt(f"prompt.chat.tools[{i}].parameters", partial(self._constraints.check, schema), None)
            found.unless(len(found) > before, "prompt.chat.tools", str(error))


def good_request_id(text: str) -> bool:
    """Whether it can travel as metadata: up to 256 printable ASCII characters."""
    return 0 < len(text) <= 256 and text.isascii() and text.isprintable()
