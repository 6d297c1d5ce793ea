"""Matrices of a model in the form that this machine multiplies by fastest. R: rows, E: outputs, D: inputs.

oneDNN reads a bf16 weight faster when it is packed into the layout of its kernels: 1.2 to 2.7 times, at any row count
(docs/adr/0015-packed-weights.md). The packed form replaces the stored one. fp32 and CUDA keep theirs.
"""

from collections.abc import Callable
from typing import Any

import torch

from model.linear import FEW, in_turns, linear
from model.matrices.matrix import Matrix, Product

Pack = Callable[[torch.Tensor], Product]

_LEAST = 1 << 16  # numbers in a weight; a smaller one is not worth it
_ROWS = (1, 2, 3, 4, 6, 7, 8, 12, 16, 17, 31, 33, 40, 70)  # row counts that a trial compares


class Packer:
    """Makes matrices of weights. The first of each shape is preceded by a trial with rows alone and together: where a
    row's bits depend on its batch, or the operator is missing, weights of that shape stay as they are.
    """

    def __init__(self) -> None:
        self._ways: dict[tuple[int, ...], Pack | None] = {}  # by shape

    def matrix(self, weight_ED: torch.Tensor) -> Matrix:
        """The caller lets go of the weight: it may be copied."""
        if _can_pack(weight_ED):
            outputs, inputs = shape = tuple(weight_ED.shape)
            if shape not in self._ways:
                numbers_ED = cancelling(outputs, inputs)
                ways: tuple[Pack, ...] = (_packed, _packed_for_two, _packed_in_turns)
                self._ways[shape] = next((pack for pack in ways if rows_agree(pack(numbers_ED), inputs)), None)
            if pack := self._ways[shape]:
                return Matrix(pack(weight_ED), weight_ED.nbytes)
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


def _packed_for_two(weight_ED: torch.Tensor) -> Product:
    """Where a single row is summed in another order (seen on Zen 5 with more than 1,024 inputs) it gets company."""
    product = _packed(weight_ED)
    return lambda x_RD: product(x_RD) if len(x_RD) != 1 else product(x_RD.expand(2, -1))[:1]


def _packed_in_turns(weight_ED: torch.Tensor) -> Product:
    """Where more rows are summed in another order (seen with AMX) they take turns."""
    product = _packed(weight_ED)
    return lambda x_RD: product(x_RD) if len(x_RD) <= FEW else in_turns(product, x_RD)


def cancelling(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    """Random numbers [outputs, inputs] of which the second half repeats the first."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs // 2, generator=source).bfloat16().repeat(1, 3)[:, :inputs]


def rows_agree(product: Product, inputs: int) -> bool:
    """Whether rows have the same bits alone, in batches of other sizes, and at other places of a batch. The product is
    one of `cancelling` numbers: with rows whose halves have opposite signs, exact sums are (nearly) 0 and what is left
    are errors of rounding, which another order of adding changes for certain, and not in one of ten weights.
    """
    x_RD = cancelling(max(_ROWS), inputs, seed=1)
    x_RD[:, inputs // 2 :] *= -1
    whole = product(x_RD)
    places = [(first, count) for count in _ROWS for first in (0, max(_ROWS) - count)]
    return all(torch.equal(product(x_RD[f : f + n].clone()), whole[f : f + n]) for f, n in places)
