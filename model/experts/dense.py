"""One expert: its SwiGLU matrices of every layer (Shazeer 2020; w1, w2, w3 as in HF's Mixtral).
R: rows, D: hidden size, I: intermediate size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from model.matrices.matrix import Matrix


class ExpertWeights:
    """One expert's matrices: w1 and w3 of a layer as one [2I, D] (one product instead of two), w2 as [D, I]."""

    def __init__(self, expert: int, layers: int, matrix: Callable[..., Matrix]) -> None:
        """`matrix` makes one of the weights of these HF names, one below the other."""
        self.w13: list[Matrix] = []
        self.w2: list[Matrix] = []
        for layer in range(layers):
            at = f"model.layers.{layer}.block_sparse_moe.experts.{expert}"
            self.w13.append(matrix(f"{at}.w1.weight", f"{at}.w3.weight"))
            self.w2.append(matrix(f"{at}.w2.weight"))

    @torch.inference_mode()
    def forward(self, layer: int, x_RD: torch.Tensor) -> torch.Tensor:
        """w2(silu(w1 x) * w3 x) for rows [R, D]; a pure function of (layer, rows), so a call may be repeated."""
        gate, up = self.w13[layer](x_RD).chunk(2, dim=-1)
        return self.w2[layer](F.silu(gate) * up)

    def nbytes(self) -> int:
        return sum(matrix.nbytes for matrix in (*self.w13, *self.w2))
