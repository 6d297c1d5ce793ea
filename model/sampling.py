"""Draws the next token of each sequence of a batch, vectorised over the batch.

Order: penalties, bias, masks, temperature, top-k, top-p, min-p, draw. The draw is Gumbel-max (Maddison et al. 2014)
with noise hashed from (seed, output index, position, token id): a seeded sequence gets the same tokens whatever its
batch mates, can be resumed anywhere, and is not flipped by a logit that differs in its last bit, as the inverse of
a cumulative sum would be. B: sequences, V: vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from model.batch import SampledToken, SamplingParams

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_COLDEST = 1e-5  # dividing fp32 logits by less may overflow, and two infinities cannot be told apart


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One row of logits: whose it is, how to draw, and the sequence's tokens so far."""

    slot: int
    params: SamplingParams
    token_ids: Sequence[int]
    prompt_length: int


def draw(logits_BV: torch.Tensor, rows: Sequence[DrawRequest]) -> list[SampledToken]:
    """Draw one token per row of fp32 logits."""
    scores_BV = logits_BV.clone()
    for b, row in enumerate(rows):
        _penalise(scores_BV[b], row)
        _bias_and_ban(scores_BV[b], row)
    ids = scores_BV.argmax(dim=-1)
    random = [b for b, row in enumerate(rows) if row.params.temperature > 0]
    if random:
        ids[random] = _draw_random(scores_BV[random], [rows[b] for b in random])
    chosen = ids.tolist()
    return [_report(logits_BV[b], row, chosen[b]) for b, row in enumerate(rows)]


def _penalise(scores_V: torch.Tensor, row: DrawRequest) -> None:
    p = row.params
    if p.repetition_penalty != 1.0:  # HF RepetitionPenaltyLogitsProcessor: over prompt and output
        seen = torch.tensor(sorted(set(row.token_ids)), dtype=torch.int64, device=scores_V.device)
        values = scores_V[seen]
        scores_V[seen] = torch.where(values < 0, values * p.repetition_penalty, values / p.repetition_penalty)
    if p.presence_penalty or p.frequency_penalty:  # OpenAI's formula: over the output alone
        output = torch.tensor(row.token_ids[row.prompt_length :], dtype=torch.int64, device=scores_V.device)
        counts = torch.bincount(output, minlength=scores_V.shape[0]).to(scores_V.dtype)
        scores_V -= counts * p.frequency_penalty + (counts > 0).to(scores_V.dtype) * p.presence_penalty


def _bias_and_ban(scores_V: torch.Tensor, row: DrawRequest) -> None:
    p = row.params
    if p.logit_bias:
        ids, values = zip(*p.logit_bias, strict=True)
        scores_V[list(ids)] += torch.tensor(values, dtype=scores_V.dtype, device=scores_V.device)
    if p.banned and len(row.token_ids) - row.prompt_length < p.min_tokens:
        scores_V[list(p.banned)] = float("-inf")


def _draw_random(scores_BV: torch.Tensor, rows: Sequence[DrawRequest]) -> torch.Tensor:
    noise_BV = gumbel_noise(
        [noise_key(row.params.seed, row.params.output_index, len(row.token_ids)) for row in rows],
        scores_BV.shape[1],
        scores_BV.device,
    )
    return (_cut(scores_BV, rows).double() + noise_BV).argmax(dim=-1)


def _cut(scores_BV: torch.Tensor, rows: Sequence[DrawRequest]) -> torch.Tensor:
    """Scores after temperature, with all that top-k, top-p and min-p rule out at minus infinity."""
    column = _columns(rows, scores_BV.device)
    scores_BV = scores_BV / column(lambda p: max(p.temperature, _COLDEST))
    if any(row.params.top_k for row in rows):
        scores_BV = _top_k(scores_BV, [row.params.top_k for row in rows])
    if any(row.params.top_p < 1 for row in rows):
        scores_BV = _top_p(scores_BV, column(lambda p: 1 - p.top_p))
    if any(row.params.min_p > 0 for row in rows):
        probabilities = scores_BV.softmax(-1)
        floor = column(lambda p: p.min_p) * probabilities.max(-1, keepdim=True).values
        scores_BV = scores_BV.masked_fill(probabilities < floor, float("-inf"))
    return scores_BV


def _columns(
    rows: Sequence[DrawRequest], device: torch.device
) -> Callable[[Callable[[SamplingParams], float]], torch.Tensor]:
    def column(of: Callable[[SamplingParams], float]) -> torch.Tensor:
        return torch.tensor([of(row.params) for row in rows], dtype=torch.float32, device=device)[:, None]

    return column


def _top_k(scores_BV: torch.Tensor, ks: Sequence[int]) -> torch.Tensor:
    """Keep the k best of each row, and what ties with the k-th (HF TopKLogitsWarper); k = 0 keeps all."""
    vocab = scores_BV.shape[1]
    limits = [min(k, vocab) if k else vocab for k in ks]
    best = scores_BV.topk(max(limits), dim=-1).values
    kth = best.gather(1, torch.tensor(limits, device=scores_BV.device)[:, None] - 1)
    return scores_BV.masked_fill(scores_BV < kth, float("-inf"))


def _top_p(scores_BV: torch.Tensor, rest_B1: torch.Tensor) -> torch.Tensor:
    """Keep the smallest set of best tokens that leaves out at most `rest` = 1 - top_p of the probability (HF
    TopPLogitsWarper).
    """
    ascending, order = scores_BV.sort(dim=-1)
    below = ascending.softmax(-1).cumsum(-1) <= rest_B1
    below[:, -1] = False
    drop = torch.zeros_like(below).scatter(1, order, below) & (rest_B1 > 0)
    return scores_BV.masked_fill(drop, float("-inf"))


def _report(logits_V: torch.Tensor, row: DrawRequest, token_id: int) -> SampledToken:
    count = row.params.logprobs
    if count < 0:
        return SampledToken(row.slot, token_id)
    logprobs = logits_V.log_softmax(-1)
    best = logprobs.topk(min(count, logits_V.shape[0]))
    top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return SampledToken(row.slot, token_id, float(logprobs[token_id]), top)


def noise_key(seed: int, output_index: int, position: int) -> int:
    """A 64-bit key for one draw: SplitMix64's finaliser (Steele et al. 2014), chained over its arguments."""
    key = _mix(seed & _MASK64)
    key = _mix((key + _GOLDEN * (output_index + 1)) & _MASK64)
    return _mix((key + _GOLDEN * (position + 1)) & _MASK64)


def gumbel_noise(keys: Sequence[int], vocab: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Gumbel(0, 1) noise, float64 [len(keys), vocab]; element (b, v) depends on keys[b] and v alone."""
    key_B1 = torch.tensor([_signed(k) for k in keys], dtype=torch.int64, device=device)[:, None]
    ids_V = torch.arange(1, vocab + 1, dtype=torch.int64, device=device) * _signed(_GOLDEN)
    bits_BV = key_B1 + ids_V  # int64 arithmetic wraps, as the hash wants
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits_BV = (bits_BV ^ _shift_right(bits_BV, shift)) * _signed(factor)
    bits_BV = bits_BV ^ _shift_right(bits_BV, 31)
    uniform = (_shift_right(bits_BV, 11).double() + 0.5) * 2.0**-53  # 53 bits, never 0 or 1
    return -torch.log(-torch.log(uniform))


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift of int64 (torch's own keeps the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
