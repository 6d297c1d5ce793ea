"""Top-k routing in HF's order, and the permutation that groups a batch's rows by expert.
T: tokens, D: hidden size, E: experts, K: experts per token, R = T * K rows.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from model.device.host_link import fetch, put


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A layer's question to its experts: the hidden states, and per token the experts with their weights. `experts_TK`
    is ascending along K: the combine adds in that order, which is HF's (it loops over experts).
    """

    layer: int
    x_TD: torch.Tensor
    experts_TK: torch.Tensor
    weights_TK: torch.Tensor


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows of a dispatch in expert order. `tokens_R`: the token of each grouped row; `counts`: rows per expert id;
    `rows_KT`: for each k the grouped row of every token's k-th expert.
    Example: experts_TK = [[0, 2], [0, 1]] gives tokens 0 1 1 0, counts [2, 1, 1] and rows [[0, 1], [3, 2]].
    """

    tokens_R: torch.Tensor
    counts: tuple[int, ...]
    rows_KT: torch.Tensor


def route(logits_TE: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Experts and weights [T, K]: softmax over all experts in fp32, top-k, renormalised (HF `MixtralTopKRouter`)."""
    probabilities = torch.softmax(logits_TE.float(), dim=-1)
    weights_TK, experts_TK = torch.topk(probabilities, k, dim=-1)
    weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
    experts_TK, rank = torch.sort(experts_TK, dim=-1)
    return experts_TK, weights_TK.gather(-1, rank)


def group(experts_TK: torch.Tensor, expert_count: int) -> Grouping:
    """Sort the rows by expert, keeping token order within an expert."""
    (host_TK,) = fetch(experts_TK)  # the host needs the counts anyway, and numpy starts up faster
    flat_R = host_TK.numpy().ravel()
    order_R = np.argsort(flat_R, kind="stable")
    rows_TK = np.argsort(order_R).reshape(experts_TK.shape)  # a permutation's argsort is its inverse
    counts = np.bincount(flat_R, minlength=expert_count)
    tokens_R, rows_KT = order_R // experts_TK.shape[1], np.ascontiguousarray(rows_TK.T)
    device = experts_TK.device
    return Grouping(put(tokens_R, device), tuple(counts.tolist()), put(rows_KT, device))


def combine(weights_TK: torch.Tensor, rows_KT: torch.Tensor, outputs_RD: torch.Tensor) -> torch.Tensor:
    """Weighted sum [T, D] of expert outputs in grouped order (`Grouping.rows_KT`). As in HF, each product is in fp32,
    rounded to the model's dtype, and added in ascending expert order, whichever replica answers first.
    """
    products = (
        (outputs_RD.index_select(0, rows_T) * weights_TK[:, k : k + 1]).to(outputs_RD.dtype)
        for k, rows_T in enumerate(rows_KT)
    )
    return reduce(torch.Tensor.add_, products)
