"""Turns a GenerateRequest into what the engine runs, or into all of its violations at once."""

import secrets
from dataclasses import replace
from functools import cached_property
from typing import Any

from cluster.engine.generation import GenerationRequest
from cluster.engine.served_model import ServedModel
from cluster.engine.text import StopRules
from cluster.gateway.auth import ANYBODY, MOST_PRIORITY, Caller
from cluster.gateway.lengths import Lengths
from cluster.gateway.prompts import prompt_ids
from cluster.gateway.violations import Violations
from cluster.policy.scheduling.limits import Limits
from cluster.policy.scheduling.sequence import SequenceRequest
from cluster.settings.request_options import SAMPLING_RANGES
from model.batch import Constraint, ConstraintKind, SamplingParams
from model.constraint.grammar import Constraints
from protos.eightwinds.v1 import inference_pb2 as pb

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1000
MAX_LOGPROBS = 20
MAX_NAME = 256


class Validator:
    """Checks requests against the served model and, once it is known, the KV cache."""

    def __init__(self, served: ServedModel) -> None:
        self._served = served
        self._vocab = served.checkpoint.config.vocab_size
        self._lengths = Lengths(served)

    @cached_property
    def _constraints(self) -> Constraints:
        """Made with the first request that has one: they hold a copy of the vocabulary."""
        return Constraints(self._served.tokenizer, self._vocab, self._served.eos_ids)

    def generation(
        self, request: pb.GenerateRequest, limits: Limits, caller: Caller = ANYBODY, *, whole: bool = False
    ) -> GenerationRequest:
        """The request with every default filled in; raises ApiError with all violations.

        It counts for the caller's name where there is one, whatever `user` says, so that naming many users brings no
        more. `whole`: the answer is to be one message, which must not become larger than clients take.
        """
        found = Violations()
        ids = prompt_ids(self._served, request.prompt, found)
        stopping = request.stopping
        asked = stopping.max_tokens if stopping.HasField("max_tokens") else None
        max_tokens = max(1, self._lengths.context(limits) - len(ids)) if asked is None else asked
        found.unless(max_tokens >= 1, "stopping.max_tokens", "must be at least 1; leave it out for the whole context")
        self._stopping(stopping, max_tokens, found)
        sampling = self._sampling(request.sampling, found)
        self._output(request.output, found)
        constraint = None
        if request.HasField("constraint"):
            constraint = self._constraint(request.constraint, stopping, found)
        n = request.n if request.HasField("n") else 1
        found.unless(1 <= n <= 8, "n", "must be 1 to 8")
        highest = caller.highest_priority
        most = f"{highest}, the highest of this token" if highest < MOST_PRIORITY else "100"
        found.unless(-100 <= request.priority <= highest, "priority", f"must be -100 to {most}")
        found.unless(len(request.user) <= MAX_NAME, "user", f"must have at most {MAX_NAME} characters")
        named = not request.request_id or good_request_id(request.request_id)
        found.unless(named, "request_id", "must have at most 256 characters, of printable ASCII")
        found.raise_any()
        max_tokens = self._lengths.in_context(len(ids), asked, limits)
        if whole:
            max_tokens = self._lengths.in_message(request.output, len(ids), n, max_tokens, asked)
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
            sequence=SequenceRequest(
                prompt_ids=tuple(ids),
                sampling=sampling,
                max_tokens=max_tokens,
                stop_ids=stop_ids,
                priority=request.priority,
                routing=request.output.trace,
                client=caller.name or request.user,
                tenant=caller.name,
                prompt_logprobs=request.output.prompt_logprobs if request.output.HasField("prompt_logprobs") else -1,
            ),
            rules=StopRules(tuple(stopping.stop), stopping.include_stop, stopping.min_tokens),
            n=n,
            special_tokens=request.output.special_tokens,
        )

    def prompt_ids(self, prompt: pb.Prompt) -> list[int]:
        """The ids of a prompt alone; raises ApiError."""
        found = Violations()
        ids = prompt_ids(self._served, prompt, found)
        found.raise_any()
        return ids

    def token_ids(self, ids: list[int]) -> list[int]:
        """Ids to detokenize; raises ApiError."""
        found = Violations()
        found.ids(ids, "token_ids", self._vocab)
        found.raise_any()
        return ids

    def _sampling(self, given: pb.Sampling, found: Violations) -> SamplingParams:
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

    def _stopping(self, stopping: pb.Stopping, max_tokens: int, found: Violations) -> None:
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
        found.ids(list(stopping.stop_token_ids), "stopping.stop_token_ids", self._vocab)

    def _output(self, output: pb.OutputOptions, found: Violations) -> None:
        found.unless(0 <= output.logprobs <= MAX_LOGPROBS, "output.logprobs", f"must be 0 to {MAX_LOGPROBS}")
        asked = output.prompt_logprobs
        found.unless(0 <= asked <= MAX_LOGPROBS, "output.prompt_logprobs", f"must be 0 to {MAX_LOGPROBS}")

    def _constraint(self, given: pb.Constraint, stopping: pb.Stopping, found: Violations) -> Constraint | None:
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


def good_request_id(text: str) -> bool:
    """Whether it can travel as metadata: up to 256 printable ASCII characters."""
    return 0 < len(text) <= 256 and text.isascii() and text.isprintable()
