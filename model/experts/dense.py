"""One expert: its SwiGLU matrices of every layer (Shazeer 2020; w1, w2, w3 as in HF's Mixtral).
R: rows, D: hidden size, I: intermediate size.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from model.matrices.matrix import Make, Matrix
from model.matrices.packed import Packer


class ExpertWeights:
    """One expert's matrices: w1 and w3 of a layer as one [2I, D] (one product instead of two), w2 as [D, I]."""

    def __init__(self, expert: int, layers: int, tensors: Mapping[str, torch.Tensor], make: Make | None = None) -> None:
        """`tensors` holds the expert's tensors under their HF names; `make` holds a matrix in another form."""
        make = make or Packer().matrix
        self.w13: list[Matrix] = []
        self.w2: list[Matrix] = []
        for layer in range(layers):
            at = f"model.layers.{layer}.block_sparse_moe.experts.{expert}"
            self.w13.append(make(_stacked(tensors, f"{at}.w1.weight", f"{at}.w3.weight")))
            self.w2.append(make(tensors[f"{at}.w2.weight"]))

    @torch.inference_mode()
    def forward(self, layer: int, x_RD: torch.Tensor) -> torch.Tensor:
        """w2(silu(w1 x) * w3 x) for rows [R, D]; a pure function of (layer, rows), so a call may be repeated."""
        gate, up = self.w13[layer](x_RD).chunk(2, dim=-1)
        return self.w2[layer](F.silu(gate) * up)

    def nbytes(self) -> int:
        return sum(matrix.nbytes for matrix in (*self.w13, *self.w2))


def _stacked(tensors: Mapping[str, torch.Tensor], *names: str) -> torch.Tensor:
    """Matrices of one shape, one below the other; no two of them are held beside the result."""
    whole_ED = torch.empty(0)
    for i, name in enumerate(names):
        part_ID = tensors[name]
        if not i:
            whole_ED = part_ID.new_empty(len(names) * len(part_ID), part_ID.shape[1])
        whole_ED[i * len(part_ID) : (i + 1) * len(part_ID)] = part_ID
    return whole_ED
