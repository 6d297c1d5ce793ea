"""One expert: its SwiGLU matrices of every layer (Shazeer 2020; w1, w2, w3 as in HF's Mixtral).
R: rows, D: hidden size, I: intermediate size.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from model.linear import linear


class ExpertWeights:
    """One expert's matrices: w1 and w3 of a layer as one [2I, D] (one product instead of two), w2 as [D, I]."""

    def __init__(self, expert: int, layers: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """`tensors` holds the expert's tensors under their HF names."""
        places = [f"model.layers.{layer}.block_sparse_moe.experts.{expert}" for layer in range(layers)]
        self.w13 = [torch.cat((tensors[f"{at}.w1.weight"], tensors[f"{at}.w3.weight"])) for at in places]
        self.w2 = [tensors[f"{at}.w2.weight"] for at in places]

    @torch.inference_mode()
    def forward(self, layer: int, x_RD: torch.Tensor) -> torch.Tensor:
        """w2(silu(w1 x) * w3 x) for rows [R, D]; a pure function of (layer, rows), so a call may be repeated."""
        gate, up = linear(x_RD, self.w13[layer]).chunk(2, dim=-1)
        return linear(F.silu(gate) * up, self.w2[layer])

    def nbytes(self) -> int:
        return sum(t.nbytes for t in (*self.w13, *self.w2))
