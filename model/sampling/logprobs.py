"""Reported log-probabilities: log-softmax of the raw logits, before penalties, masks and temperature.

R: rows of logits, V: vocabulary, C: the most alternatives that any row asks for.
"""

from collections.abc import Sequence

import torch

from model.batch import Alternatives
from model.device.host_link import fetch


def score(logits_RV: torch.Tensor, token_ids_R: torch.Tensor, counts: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Columns on the logits' device, so that a caller can fetch them together with its other results: the logprob of
    each row's token [R], ids and logprobs of its best alternatives [R, C], of which row r asks for `counts[r]`.
    """
    logprobs_RV = logits_RV.log_softmax(-1)
    own_R = logprobs_RV.gather(1, token_ids_R[:, None])[:, 0]
    best = logprobs_RV.topk(min(max(counts, default=0), logits_RV.shape[1]), dim=-1)
    return own_R, best.indices, best.values


def told(columns: Sequence[torch.Tensor], counts: Sequence[int]) -> list[tuple[float, Alternatives]]:
    """For each row its token's logprob and its alternatives, best first, from the columns on the host."""
    rows = zip(*(column.tolist() for column in columns), counts, strict=True)
    return [(own, tuple(zip(ids[:count], values[:count], strict=True))) for own, ids, values, count in rows]


def logprobs(
    logits_RV: torch.Tensor, token_ids_R: torch.Tensor, counts: Sequence[int]
) -> list[tuple[float, Alternatives]]:
    return told(fetch(*score(logits_RV, token_ids_R, counts)), counts)
