"""Samples the next token of each sequence of a batch, vectorised over the batch.

Order: penalties, bias, masks, temperature, top-k, top-p, min-p, sampling. Sampling is Gumbel-max (Maddison et al.
2014) with noise hashed from (seed, output index, position, token id): a seeded sequence gets the same tokens in any
batch, can be resumed anywhere, and does not change with a logit's last bit, as the inverse of a cumulative sum would.
Reported log-probabilities are of the raw logits. B: sequences, R: some rows, V: vocabulary, C: the most alternatives.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.batch import Alternatives, Constraint, NewSequence, SampledToken
from model.device.host_link import fetch, put
from model.sampling.filters import cut
from model.sampling.gumbel import gumbel_noise, noise_key
from model.sampling.penalties import Occurrences, ban, bias, penalise, penalised

_ROWS = 128  # of a prompt that are scored at once: beside a step's logits there is room for few more


class TokenMask(Protocol):
    """Follows an output and tells which ids may come next (`model.constraint` has one). `failure` says why none can."""

    failure: str

    def allowed(self) -> NDArray[np.bool_]:
        """Ids that may come next, bool [V]; never all false."""

    def push(self, token_id: int) -> None:
        """Follow the output by one sampled id."""


MaskMaker = Callable[[Constraint], TokenMask]


class Sampler:
    """A sequence's sampling state, the same after a new admission with the output so far as if it had never left."""

    def __init__(self, new: NewSequence, make_mask: MaskMaker) -> None:
        self.slot, self.params = new.slot, new.sampling
        self.position, self.prompt_length = len(new.token_ids), new.prompt_length
        self.seen = Occurrences(new.token_ids, new.prompt_length) if penalised(self.params) else None
        self.mask = make_mask(self.params.constraint) if self.params.constraint is not None else None
        if self.mask is not None:
            for token_id in new.token_ids[new.prompt_length :]:
                self.mask.push(token_id)

    def push(self, token_id: int) -> str:
        """Go on by a sampled id; returns why the constraint can no longer be kept, or ""."""
        if self.mask is not None:
            if not self.mask.failure:  # after a failure the mask allowed nothing but the end
                self.mask.push(token_id)
            if self.mask.failure:
                return self.mask.failure
        self.position += 1
        if self.seen is not None:
            self.seen.push(token_id)
        return ""

    @property
    def banned(self) -> tuple[int, ...]:
        """Ids that must not be sampled until there are `min_tokens`."""
        return self.params.banned if self.position - self.prompt_length < self.params.min_tokens else ()


def sample(logits_BV: torch.Tensor, samplers: Sequence[Sampler]) -> list[SampledToken]:
    """Sample one token per row of fp32 logits; `numeric` is false for a row that holds NaN or infinity."""
    device = logits_BV.device
    scores_BV = shape(logits_BV, samplers)
    ids_B = scores_BV.argmax(dim=-1)
    random = [b for b, s in enumerate(samplers) if s.params.temperature > 0]
    if random:
        rows, at_R = [samplers[b] for b in random], put(random, device)
        scores_RV = cut(scores_BV[at_R], [s.params for s in rows]).double()
        keys = [noise_key(s.params.seed, s.params.output_index, s.position) for s in rows]
        ids_B[at_R] = (scores_RV + gumbel_noise(keys, scores_RV.shape[1], device)).argmax(dim=-1)
    asked = [b for b, s in enumerate(samplers) if s.params.logprobs >= 0]
    at_R = put(asked, device, torch.int64)
    counts = [samplers[b].params.logprobs for b in asked]
    scored = _score(logits_BV[at_R], ids_B[at_R], counts)
    # A sum is not finite as soon as one of its parts is not.
    host_B, sums_B, *columns = fetch(ids_B, logits_BV.sum(-1), *scored)  # the only wait of sampling
    reports: dict[int, tuple[float | None, Alternatives]] = dict(zip(asked, _told(columns, counts), strict=True))
    return [
        SampledToken(s.slot, token_id, *reports.get(b, (None, ())), math.isfinite(total))
        for b, (s, token_id, total) in enumerate(zip(samplers, host_B.tolist(), sums_B.tolist(), strict=True))
    ]


def logprobs(
    logits_RV: torch.Tensor, token_ids_R: torch.Tensor, counts: Sequence[int]
) -> list[tuple[float, Alternatives]]:
    """For each row of raw logits its token's logprob and its `counts[r]` best alternatives, best first."""
    found: list[tuple[float, Alternatives]] = []
    for at in range(0, len(counts), _ROWS):
        some = counts[at : at + _ROWS]
        found += _told(fetch(*_score(logits_RV[at : at + _ROWS], token_ids_R[at : at + _ROWS], some)), some)
    return found


def _score(logits_RV: torch.Tensor, token_ids_R: torch.Tensor, counts: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Columns on the logits' device, so that a caller can fetch them together with its other results: the logprob of
    each row's token [R], ids and logprobs of its best alternatives [R, C], of which row r asks for `counts[r]`.
    """
    logprobs_RV = logits_RV.log_softmax(-1)
    own_R = logprobs_RV.gather(1, token_ids_R[:, None])[:, 0]
    best = logprobs_RV.topk(min(max(counts, default=0), logits_RV.shape[1]), dim=-1)
    return own_R, best.indices, best.values


def _told(columns: Sequence[torch.Tensor], counts: Sequence[int]) -> list[tuple[float, Alternatives]]:
    """For each row its token's logprob and its alternatives, best first, from the columns on the host."""
    rows = zip(*(column.tolist() for column in columns), counts, strict=True)
    return [(own, tuple(zip(ids[:count], values[:count], strict=True))) for own, ids, values, count in rows]


def shape(logits_BV: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """The logits with penalties, bias and masks applied: a copy, if there are any."""
    if not any(s.seen is not None or s.mask is not None or s.params.logit_bias or s.banned for s in samplers):
        return logits_BV
    scores_BV = logits_BV.clone()
    penalise(scores_BV, [(b, s.params, s.seen) for b, s in enumerate(samplers) if s.seen is not None])
    bias(scores_BV, [(b, s.params) for b, s in enumerate(samplers)])
    ban(scores_BV, [(b, s.banned) for b, s in enumerate(samplers) if s.mask is None])
    constrained = [b for b, s in enumerate(samplers) if s.mask is not None]
    if constrained:
        allowed_RV = put(np.stack([_allowed(samplers[b]) for b in constrained]), scores_BV.device)
        at_R = put(constrained, scores_BV.device)
        scores_BV[at_R] = scores_BV[at_R].masked_fill(~allowed_RV, float("-inf"))
    return scores_BV


def _allowed(sampler: Sampler) -> NDArray[np.bool_]:
    """Ids that the constraint allows, without the banned ones, unless that leaves nothing."""
    assert sampler.mask is not None
    allowed = sampler.mask.allowed()
    kept = allowed.copy()
    kept[list(sampler.banned)] = False
    return kept if kept.any() else allowed
