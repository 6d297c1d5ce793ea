"""What tests of sampling share: logits, parameters, and samplers made from a sequence's tokens."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from model.batch import Constraint, NewSequence, SamplingParams
from model.sampling.sampler import Sampler, TokenMask


def unconstrained(constraint: Constraint) -> TokenMask:
    """For slots and samplers that meet no constraint."""
    raise AssertionError(f"no constraint was expected: {constraint}")


def sampler(
    params: SamplingParams,
    token_ids: Sequence[int] = (),
    prompt_length: int = 0,
    slot: int = 0,
    mask: TokenMask | None = None,
) -> Sampler:
    """One for a sequence with these tokens, of which the first are prompt; `mask` is its constraint's."""
    new = NewSequence(slot, tuple(token_ids), prompt_length, params)
    return Sampler(new, unconstrained if mask is None else lambda _: mask)


def some_params(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=rng.choice([0.0, 0.3, 1.0, 1.7]),
        top_p=rng.choice([1.0, 0.9, 0.5]),
        top_k=rng.choice([0, 1, 5, 1000]),
        min_p=rng.choice([0.0, 0.1]),
        repetition_penalty=rng.choice([1.0, 1.3]),
        presence_penalty=rng.choice([0.0, 0.7]),
        frequency_penalty=rng.choice([0.0, -0.4]),
        logit_bias=rng.choice([(), ((3, 2.0), (8, -100.0))]),
        seed=rng.randrange(2**64),
        output_index=rng.randrange(4),
        min_tokens=rng.choice([0, 30]),
        banned=rng.choice([(), (2, 4)]),
        logprobs=rng.choice([-1, 0, 3]),
    )


def some_logits(rows: int, vocab: int = 101) -> torch.Tensor:
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(11)) * 3
    logits[rows // 2 :] = logits[rows // 2 :].round()  # with ties
    return logits


def warped(logits: torch.Tensor, p: SamplingParams) -> torch.Tensor:
    """By transformers' processors, in the order in which `generate` has them."""
    ids: Any = torch.zeros(len(logits), 0, dtype=torch.int64)
    processors: list[Any] = [TemperatureLogitsWarper(p.temperature)]
    processors += [TopKLogitsWarper(p.top_k)] if p.top_k else []
    processors += [TopPLogitsWarper(p.top_p)] if p.top_p < 1 else []
    processors += [MinPLogitsWarper(p.min_p)] if p.min_p else []
    for processor in processors:
        logits = processor(ids, logits)
    return logits
