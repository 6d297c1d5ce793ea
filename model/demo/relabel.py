"""Rename the experts of each layer so that a domain's favourite experts share an id in all layers.

Which of a layer's experts is called 0 is an accident of training, and it differs from layer to layer. The
order is free: permuting the gate's rows and the experts together leaves the function unchanged. After
relabelling, the load of an expert id summed over layers says something about the text that is being served.
"""

from typing import Any

import torch
from torch import Tensor


def best_match(gain_DE: Tensor) -> list[int]:
    """Match every domain with one expert so that the sum of gains is largest; entry d is d's expert.

    Exact, by dynamic programming over sets of used experts (2^8 states): `best[mask]` is the best total of
    the first popcount(mask) domains when they use just the experts in `mask`.

    >>> best_match(torch.tensor([[5.0, 4.0], [5.0, 1.0]]))
    [1, 0]
    """
    size = gain_DE.shape[0]
    gains = gain_DE.tolist()
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for domain in range(size):
        step: dict[int, tuple[float, list[int]]] = {}
        for mask, (total, chosen) in best.items():
            for expert in range(size):
                if mask >> expert & 1:
                    continue
                candidate = (total + gains[domain][expert], [*chosen, expert])
                key = mask | 1 << expert
                if key not in step or candidate[0] > step[key][0]:
                    step[key] = candidate
        best = step
    return best[(1 << size) - 1][1]


def orders(counts_LDE: Tensor) -> list[list[int]]:
    """For every layer the old expert ids in their new order: domain number d's favourite becomes id d."""
    shares = counts_LDE.double() / counts_LDE.sum(2, keepdim=True)
    return [best_match(layer) for layer in shares]


@torch.no_grad()
def relabel(model: Any, layer_orders: list[list[int]]) -> None:
    """Permute gate rows and experts of a transformers Mixtral in place."""
    for layer, order in zip(model.model.layers, layer_orders, strict=True):
        experts = layer.mlp.experts
        for weight in (layer.mlp.gate.weight, experts.gate_up_proj, experts.down_proj):
            weight.copy_(weight[order].clone())
