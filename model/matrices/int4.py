"""Matrices of 4-bit integers, for hosts with little memory, by torch's own operator. R: rows, E: outputs, D: inputs.

Groups of inputs of an output have a scale and a middle of their own (bf16); rows stay in bf16, and are multiplied with
the widened weight. A row has the same bits in any batch; other machines may add in another order. (torch has the
operator for numbers of 16 and 32 bits, too, but 30 to 130 times slower.)
"""

from typing import Any

import torch
import torch.nn.functional as F

from model.config import INT4_GROUPS
from model.grouped import Grouped
from model.matrices.matrix import Matrix

_OUTPUTS = 64  # the operator takes multiples, and packs so many at a time
_BLOCK = 4 * _OUTPUTS  # outputs that are packed at a time, because that needs integers of 32 bits


def int4_matrix(weight_ED: torch.Tensor | Grouped) -> Matrix:
    """Integers in groups stay what they are, a tensor is rounded to some. ValueError for sizes that the operator does
    not take, or where torch has none for this device.
    """
    weight = weight_ED if isinstance(weight_ED, Grouped) else Grouped.rounded(weight_ED)
    outputs, inputs = weight.integer_ED.shape
    stored = inputs // weight.scale_EG.shape[1]
    group = next((size for size in INT4_GROUPS if stored % size == 0), None)
    operators: Any = torch.ops.aten
    on_cpu = weight.integer_ED.device.type == "cpu" and hasattr(operators, "_weight_int4pack_mm_for_cpu")
    if group is None or not on_cpu:
        what = f"a matrix of {inputs} inputs in groups of {stored}"
        raise ValueError(f"no 4-bit product here takes {what}: set experts.quantization to int8 or none")
    packed = _packed(weight.integer_ED)
    scales = torch.stack((weight.scale_EG, weight.middle_EG), dim=-1).bfloat16()
    scales = F.pad(scales.repeat_interleave(stored // group, dim=1), (0, 0, 0, 0, 0, len(packed) - outputs))
    scales = scales.transpose(0, 1).contiguous()
    order_D = weight.order_D
    nbytes = packed.nbytes + scales.nbytes + (0 if order_D is None else order_D.nbytes)

    def product(x_RD: torch.Tensor) -> torch.Tensor:
        if not len(x_RD):
            return x_RD.new_empty((0, outputs))
        in_order_RD = x_RD if order_D is None else x_RD[:, order_D]
        y_RE = operators._weight_int4pack_mm_for_cpu(in_order_RD.bfloat16(), packed, group, scales)
        return torch.as_tensor(y_RE)[:, :outputs].to(x_RD.dtype)

    return Matrix(product, nbytes)


def _packed(integer_ED: torch.Tensor) -> torch.Tensor:
    """In the operator's layout, two integers a byte, with outputs of 0 up to a whole number of its blocks."""
    outputs, inputs = integer_ED.shape
    packed = torch.empty((outputs + -outputs % _OUTPUTS, inputs // 2), dtype=torch.uint8)
    operators: Any = torch.ops.aten
    for begin in range(0, outputs, _BLOCK):
        part = integer_ED[begin : begin + _BLOCK].int()
        part = F.pad(part, (0, 0, 0, -len(part) % _OUTPUTS))
        packed[begin : begin + len(part)] = operators._convert_weight_to_int4pack_for_cpu(part, 1)
    return packed
