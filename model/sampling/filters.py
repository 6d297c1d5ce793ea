"""Temperature, then the filters top-k, top-p and min-p, in HF's order and by HF's rules. R: rows, V: vocabulary."""

from collections.abc import Callable, Sequence

import torch

from model.batch import SamplingParams
from model.device.host_link import put

_COLDEST = 1e-5  # dividing fp32 logits by less may overflow, and infinities cannot be ordered


def cut(scores_RV: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Scores after temperature, minus infinity for every id that is ruled out; each row by itself."""
    scores_RV = scores_RV / _column(params, lambda p: max(p.temperature, _COLDEST), scores_RV.device)
    for wanted, cut_rows in _CUTS:
        rows = [r for r, p in enumerate(params) if wanted(p)]
        if len(rows) == len(params):
            scores_RV = cut_rows(scores_RV, params)
        elif rows:
            at = put(rows, scores_RV.device)
            scores_RV[at] = cut_rows(scores_RV[at], [params[r] for r in rows])
    return scores_RV


def _top_k(scores_RV: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Keep the k best of each row, and all that tie with the k-th (HF TopKLogitsWarper)."""
    limits = [min(p.top_k, scores_RV.shape[1]) for p in params]
    best = scores_RV.topk(max(limits), dim=-1).values
    kth_R1 = best.gather(1, put(limits, scores_RV.device)[:, None] - 1)
    return scores_RV.masked_fill(scores_RV < kth_R1, float("-inf"))


def _top_p(scores_RV: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Keep the fewest best tokens that leave out at most 1 - top_p of the probability (HF TopPLogitsWarper)."""
    rest_R1 = _column(params, lambda p: 1 - p.top_p, scores_RV.device)
    ascending, order = scores_RV.sort(dim=-1)
    below = ascending.softmax(-1).cumsum(-1) <= rest_R1
    below[:, -1] = False
    return scores_RV.masked_fill(torch.zeros_like(below).scatter(1, order, below), float("-inf"))


def _min_p(scores_RV: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Keep ids at least min_p times as probable as the best (HF MinPLogitsWarper)."""
    probabilities = scores_RV.softmax(-1)
    floor_R1 = _column(params, lambda p: p.min_p, scores_RV.device) * probabilities.max(-1, keepdim=True).values
    return scores_RV.masked_fill(probabilities < floor_R1, float("-inf"))


def _column(
    params: Sequence[SamplingParams], of: Callable[[SamplingParams], float], device: torch.device
) -> torch.Tensor:
    return put([of(p) for p in params], device, torch.float32)[:, None]


_Cut = Callable[[torch.Tensor, Sequence[SamplingParams]], torch.Tensor]
_CUTS: tuple[tuple[Callable[[SamplingParams], bool], _Cut], ...] = (
    (lambda p: p.top_k > 0, _top_k),
    (lambda p: p.top_p < 1, _top_p),
    (lambda p: p.min_p > 0, _min_p),
)
