"""Top-k routing in HF's order, and the permutation that groups a batch's rows by expert.

T: tokens, D: hidden size, E: experts, K: experts per token, R = T * K rows.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What a layer asks of its experts: the hidden states, and per token the experts with their weights.

    `experts_TK` is ascending along K: the combine adds in that order, which is HF's (it loops over experts).
    """

    layer: int
    x_TD: torch.Tensor
    experts_TK: torch.Tensor
    weights_TK: torch.Tensor


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows of a dispatch in expert order.

    `order_R`: for each grouped row its place t * K + k; `counts`: rows per expert id.
    Example: experts_TK = [[0, 2], [0, 1]] gives order 0 2 3 1 and counts [2, 1, 1].
    """

    order_R: torch.Tensor
    counts: tuple[int, ...]


def route(logits_TE: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Experts and weights [T, K]: softmax over all experts in fp32, top-k, renormalised (HF `MixtralTopKRouter`)."""
    probabilities = torch.softmax(logits_TE.float(), dim=-1)
    weights_TK, experts_TK = torch.topk(probabilities, k, dim=-1)
    weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
    experts_TK, rank = torch.sort(experts_TK, dim=-1)
    return experts_TK, weights_TK.gather(-1, rank)


def group(experts_TK: torch.Tensor, expert_count: int) -> Grouping:
    """Sort the rows by expert, keeping token order within an expert."""
    flat_R = experts_TK.flatten()
    counts = torch.bincount(flat_R, minlength=expert_count)
    return Grouping(torch.argsort(flat_R, stable=True), tuple(counts.tolist()))


def combine(dispatch: Dispatch, grouping: Grouping, outputs_RD: torch.Tensor) -> torch.Tensor:
    """Weighted sum [T, D] of expert outputs given in grouped order.

    As in HF: each product in fp32, rounded to the model's dtype, added in ascending expert order. The order is
    fixed, so which replica answered first changes nothing.
    """
    tokens, k = dispatch.experts_TK.shape
    row_TK = torch.empty_like(grouping.order_R)
    row_TK[grouping.order_R] = torch.arange(tokens * k, device=row_TK.device)
    row_TK = row_TK.view(tokens, k)
    total_TD = torch.zeros_like(dispatch.x_TD)
    for j in range(k):
        y_TD = outputs_RD.index_select(0, row_TK[:, j]).float()
        total_TD += y_TD.mul_(dispatch.weights_TK[:, j, None]).to(total_TD.dtype)
    return total_TD
