"""Log-probabilities as they are reported: log-softmax of the raw logits, before anything is done to them."""

from collections.abc import Sequence

import torch

from model.batch import Alternatives


def logprobs(
    logits_RV: torch.Tensor, token_ids: Sequence[int], counts: Sequence[int]
) -> list[tuple[float, Alternatives]]:
    """For each row of logits its token's logprob and the `counts[r]` best alternatives, best first."""
    if not token_ids:
        return []
    logprobs_RV = logits_RV.log_softmax(-1)
    own = logprobs_RV.gather(1, torch.tensor(token_ids, device=logits_RV.device)[:, None])[:, 0].tolist()
    best = logprobs_RV.topk(min(max(counts), logits_RV.shape[1]), dim=-1)
    ids, values = best.indices.tolist(), best.values.tolist()
    return [(own[r], tuple(zip(ids[r][:count], values[r][:count], strict=True))) for r, count in enumerate(counts)]
