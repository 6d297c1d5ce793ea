"""Reported log-probabilities: log-softmax of the raw logits, before penalties, masks and temperature.

R: rows of logits, V: vocabulary, C: the most alternatives that any row asks for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model.batch import Alternatives
from model.device.host_link import fetch


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores still on their device, so that a caller can fetch them together with its other results.

    `columns`: each row's own logprob [R], ids and logprobs of its best alternatives [R, C]. `counts`: the number of
    alternatives that each row asked for.
    """

    columns: tuple[torch.Tensor, ...]
    counts: tuple[int, ...]

    def told(self, columns: Sequence[torch.Tensor]) -> list[tuple[float, Alternatives]]:
        """For each row its token's logprob and its alternatives, from the columns on the host."""
        own, ids, values = (column.tolist() for column in columns)
        return [
            (own[r], tuple(zip(ids[r][:count], values[r][:count], strict=True))) for r, count in enumerate(self.counts)
        ]


def score(logits_RV: torch.Tensor, token_ids_R: torch.Tensor, counts: Sequence[int]) -> Scored:
    """Score each row's token and find its `counts[r]` best alternatives."""
    logprobs_RV = logits_RV.log_softmax(-1)
    own_R = logprobs_RV.gather(1, token_ids_R[:, None])[:, 0]
    best = logprobs_RV.topk(min(max(counts, default=0), logits_RV.shape[1]), dim=-1)
    return Scored((own_R, best.indices, best.values), tuple(counts))


def logprobs(
    logits_RV: torch.Tensor, token_ids_R: torch.Tensor, counts: Sequence[int]
) -> list[tuple[float, Alternatives]]:
    """For each row of logits its token's logprob and the `counts[r]` best alternatives, best first."""
    scored = score(logits_RV, token_ids_R, counts)
    return scored.told(fetch(*scored.columns))
