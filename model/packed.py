"""Matrices of a model in the form that this machine multiplies by fastest. R: rows, E: outputs, D: inputs.

oneDNN reads a bf16 weight faster when it is packed into the layout of its kernels: 1.2 to 2.7 times, at any row count
(docs/adr/0015-packed-weights.md). The packed form replaces the stored one. fp32 and CUDA keep theirs.
"""

from typing import Any

import torch

from model.linear import linear
from model.matrix import Matrix, Product

_LEAST = 1 << 16  # numbers in a weight; a smaller one is not worth it
_ROWS = (1, 2, 3, 7, 16, 33)  # row counts that a trial compares


class Packer:
    """Makes matrices of weights. Of each shape the first packed one is tried with rows alone and together: where a
    row's bits depend on its batch, or the operator is missing, weights of that shape stay as they are.
    """

    def __init__(self) -> None:
        self._trusted: dict[tuple[int, ...], bool] = {}

    def matrix(self, weight_ED: torch.Tensor) -> Matrix:
        """The caller lets go of the weight: it may be copied."""
        if _can_pack(weight_ED) and self._trusted.get(tuple(weight_ED.shape), True):
            product = _packed(weight_ED)
            if tuple(weight_ED.shape) not in self._trusted:
                self._trusted[tuple(weight_ED.shape)] = rows_agree(product, weight_ED.shape[1])
            if self._trusted[tuple(weight_ED.shape)]:
                return Matrix(product, weight_ED.nbytes)
        return Matrix(lambda x_RD: linear(x_RD, weight_ED), weight_ED.nbytes)


def _can_pack(weight_ED: torch.Tensor) -> bool:
    operators: Any = torch.ops.mkldnn  # private ones: a later torch may lack them
    return (
        weight_ED.dtype == torch.bfloat16
        and weight_ED.device.type == "cpu"
        and weight_ED.numel() >= _LEAST
        and hasattr(operators, "_reorder_linear_weight")
        and hasattr(operators, "_linear_pointwise")
        and bool(operators._is_mkldnn_bf16_supported())
    )


def _packed(weight_ED: torch.Tensor) -> Product:
    operators: Any = torch.ops.mkldnn
    weight = operators._reorder_linear_weight(weight_ED, None)
    return lambda x_RD: operators._linear_pointwise(x_RD, weight, None, "none", [], "")


def rows_agree(product: Product, columns: int) -> bool:
    """Whether rows have the same bits alone, in batches of other sizes, and at other places of a batch."""
    source = torch.Generator().manual_seed(0)
    x_RD = torch.randn(max(_ROWS), columns, generator=source).bfloat16()
    whole = product(x_RD)
    places = [(first, count) for count in _ROWS for first in (0, max(_ROWS) - count)]
    return all(torch.equal(product(x_RD[f : f + n].clone()), whole[f : f + n]) for f, n in places)
