"""Matrices of a model in the form that this machine multiplies by fastest. R: rows, E: outputs, D: inputs.

oneDNN reads a bf16 weight faster when it is packed into the layout of its kernels: 1.2 to 2.7 times, at any row count
(docs/adr/0015-packed-weights.md). The packed form replaces the stored one. fp32 and CUDA keep theirs.
"""

from dataclasses import dataclass
from typing import Any

import torch

from model.linear import FEW, in_turns, linear
from model.matrices.matrix import Matrix, Product

_LEAST = 1 << 16  # numbers in a weight; a smaller one is not worth it
_LAYOUTS = (None, 1)  # rows that oneDNN is told to lay a weight out for; None: it takes its default
# Row counts that a trial compares: few, because oneDNN keeps what it makes for each, about a megabyte.
_ROWS = (2, 3, 8, 16, 17, 31, 32, 33, 40, 64, 65, 128)


@dataclass(frozen=True)
class Agreement:
    """The row counts with which a product gives a row the bits of `linear`."""

    most: int  # rows; any count from two to this one, or none
    alone: bool  # a single row, too

    def keep(self, product: Product) -> Product:
        """The product with those row counts only: a single row gets company, more rows than `most` take turns."""

        def kept(x_RD: torch.Tensor) -> torch.Tensor:
            if len(x_RD) == 1 and not self.alone:
                return product(x_RD.expand(2, -1))[:1]
            return product(x_RD) if len(x_RD) <= self.most else in_turns(product, x_RD, self.most)

        return kept


class Packer:
    """Makes matrices of weights. The first of each shape is preceded by a trial of each layout with rows alone and
    together, and the one with which more rows agree is taken: with AMX the default one adds up in another order above
    32 rows, the one for a single row above 64 at the earliest, and turns of 64 rows take two thirds of the time. Where
    fewer than 32 agree, or the operator is missing, weights of that shape stay as they are.
    """

    def __init__(self) -> None:
        self._ways: dict[tuple[int, int], tuple[int | None, Agreement]] = {}  # by shape

    def matrix(self, weight_ED: torch.Tensor) -> Matrix:
        """The caller lets go of the weight: it may be copied."""
        if _can_pack(weight_ED):
            shape = weight_ED.shape[0], weight_ED.shape[1]
            if shape not in self._ways:
                self._ways[shape] = _tried(*shape)
            layout, found = self._ways[shape]
            if found.most >= FEW:
                return Matrix(found.keep(_packed(weight_ED, layout)), weight_ED.nbytes)
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


def _tried(outputs: int, inputs: int) -> tuple[int | None, Agreement]:
    numbers_ED = cancelling(outputs, inputs)
    ways = []
    for layout in _LAYOUTS:
        ways.append((layout, agreement(_packed(numbers_ED, layout), numbers_ED)))
        if ways[-1][1].most == max(_ROWS):  # nothing can be better
            break
    return max(ways, key=lambda way: way[1].most)


def _packed(weight_ED: torch.Tensor, layout: int | None) -> Product:
    operators: Any = torch.ops.mkldnn
    weight = operators._reorder_linear_weight(weight_ED, layout)
    return lambda x_RD: operators._linear_pointwise(x_RD, weight, None, "none", [], "")


def cancelling(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    """Random numbers [outputs, inputs] of which the second half repeats the first."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs // 2, generator=source).bfloat16().repeat(1, 3)[:, :inputs]


def agreement(product: Product, numbers_ED: torch.Tensor) -> Agreement:
    """The row counts with which a row's product with `cancelling` numbers has the bits of `linear`, wherever in a batch
    the row is. Rows whose halves have opposite signs make exact sums (nearly) 0, so that errors of rounding are left,
    which another order of adding changes for certain, and not in one of ten weights.
    """
    inputs = numbers_ED.shape[1]
    x_RD = cancelling(max(_ROWS), inputs, seed=1).to(numbers_ED.dtype)
    x_RD[:, inputs // 2 :] *= -1
    two = known = linear(x_RD[:2].clone(), numbers_ED)
    most = 0
    for rows in _ROWS:
        found = product(x_RD[:rows].clone())
        elsewhere = product(x_RD[:rows].flip(0)).flip(0)
        if not torch.equal(found[: len(known)], known) or not torch.equal(found, elsewhere):
            break
        most, known = rows, found
    return Agreement(most, all(torch.equal(product(x_RD[row : row + 1].clone()), two[row : row + 1]) for row in (0, 1)))
