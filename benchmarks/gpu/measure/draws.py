"""Draws on the device against draws on the CPU, from the same logits: every filter, penalty, bias, ban and mask."""

import random

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from cluster.engine.served_model import DEMO_FOLDER
from model.batch import Constraint, ConstraintKind, SampledToken, SamplingParams
from model.constraint.grammar import Constraints
from model.sampling.sampler import sample
from model.text.tokenizer import Tokenizer
from tests.sampling import sampler, some_params

_ROWS = 64
_LOGPROB = 1e-4


class EveryThird:
    """A mask that allows every third id."""

    failure = ""

    def __init__(self, vocab: int, first: int) -> None:
        self._allowed: NDArray[np.bool_] = np.arange(vocab) % 3 == first % 3

    def allowed(self) -> NDArray[np.bool_]:
        """See `model.sampling.sampler.TokenMask`."""
        return self._allowed

    def push(self, token_id: int) -> None:
        """See `model.sampling.sampler.TokenMask`."""


def compare_draws(bench: Bench) -> None:
    """The same ids, and log-probabilities within 1e-4."""
    rounds, vocab = (12, 32000) if bench.full else (2, 500)
    try:
        differ, furthest = 0, 0.0
        for seed in range(rounds):
            there, here = _sampled(bench.device, vocab, seed), _sampled(torch.device("cpu"), vocab, seed)
            differ += sum(a.token_id != b.token_id for a, b in zip(there, here, strict=True))
            furthest = max(furthest, *(abs(x - y) for x, y in zip(_logprobs(there), _logprobs(here), strict=True)))
    except MISHAPS as error:
        bench.findings.check("draws as on the CPU", False, reason(error))
        return
    detail = f"{differ} of {rounds * _ROWS} draws differ, log-probabilities by {furthest:.1g} at most"
    bench.findings.check("draws as on the CPU", not differ and furthest <= _LOGPROB, detail)
    bench.findings.check("a JSON schema's masks, as on the CPU", *_constrained(bench.device))


def _sampled(device: torch.device, vocab: int, seed: int) -> list[SampledToken]:
    rng = random.Random(seed)
    logits = torch.randn(_ROWS, vocab, generator=torch.Generator().manual_seed(seed)) * 3
    samplers = []
    for row in range(_ROWS):
        ids = [rng.randrange(vocab) for _ in range(rng.randrange(1, 60))]
        mask = EveryThird(vocab, row) if rng.random() < 0.25 else None
        samplers.append(sampler(some_params(rng), ids, rng.randrange(1, len(ids) + 1), row, mask))
    return sample(logits.to(device), samplers)


def _logprobs(tokens: list[SampledToken]) -> list[float]:
    return [0.0, *(value for t in tokens if t.logprob is not None for value in (t.logprob, *(v for _, v in t.top)))]


def _constrained(device: torch.device) -> tuple[bool, str]:
    """A whole output under a schema, token by token, with real masks."""
    texts = [_under_schema(d) for d in (device, torch.device("cpu"))]
    return texts[0] == texts[1], repr(texts[0])


def _under_schema(device: torch.device) -> str:
    tokenizer = Tokenizer.load(DEMO_FOLDER)
    schema = '{"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 3, "maxItems": 5}'
    constraint = Constraint(ConstraintKind.JSON_SCHEMA, schema)
    constraints = Constraints(tokenizer, 2048, (2,))
    row = sampler(SamplingParams(seed=5, constraint=constraint), [1], 1, 0, constraints.matcher(constraint))
    source, ids = torch.Generator().manual_seed(3), list[int]()
    while len(ids) < 60 and 2 not in ids:
        (token,) = sample(torch.randn(1, 2048, generator=source).to(device), [row])
        row.push(token.token_id)
        ids.append(token.token_id)
    return tokenizer.decode([i for i in ids if i != 2])
