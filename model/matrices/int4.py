"""Matrices of 4-bit integers, for hosts with little memory, by torch's own operator. R: rows, E: outputs, D: inputs.

Groups of inputs of an output have a scale and a zero of their own (bf16); rows stay in bf16, and are multiplied with
the widened weight. A row has the same bits in any batch; other machines may add in another order.
"""

from typing import Any

import torch
import torch.nn.functional as F

from model.matrices.matrix import Matrix

_GROUPS = (128, 64, 32)  # inputs that share a scale: the first that divides a matrix's
_BLOCK = 256  # outputs that are rounded at a time, because that needs them in fp32
_OUTPUTS = 64  # the operator takes multiples


def int4_matrix(weight_ED: torch.Tensor) -> Matrix:
    """ValueError for sizes that the operator does not take, or where torch has none for this device."""
    outputs, inputs = weight_ED.shape
    group = next((size for size in _GROUPS if inputs % size == 0), None)
    operators: Any = torch.ops.aten
    if group is None or weight_ED.device.type != "cpu" or not hasattr(operators, "_weight_int4pack_mm_for_cpu"):
        raise ValueError(f"no 4-bit product here takes a matrix of {inputs} inputs: set experts.quantization=none")
    padded_ED = F.pad(weight_ED, (0, 0, 0, -outputs % _OUTPUTS))
    w_ED, scales = rounded(padded_ED, group)
    packed = operators._convert_weight_to_int4pack_for_cpu(w_ED, 1)

    def product(x_RD: torch.Tensor) -> torch.Tensor:
        if not len(x_RD):
            return x_RD.new_empty((0, outputs))
        y_RE = operators._weight_int4pack_mm_for_cpu(x_RD.bfloat16(), packed, group, scales)
        return torch.as_tensor(y_RE)[:, :outputs].to(x_RD.dtype)

    return Matrix(product, packed.nbytes + scales.nbytes)


def rounded(weight_ED: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers 0 to 15 [E, D], and for each group its scale and what 8 stands for [D / group, E, 2]."""
    outputs, inputs = weight_ED.shape
    w_ED = torch.empty((outputs, inputs), dtype=torch.int32)
    scales = torch.empty((inputs // group, outputs, 2), dtype=torch.bfloat16)
    for begin in range(0, outputs, _BLOCK):
        numbers = weight_ED[begin : begin + _BLOCK].float().unflatten(1, (-1, group))
        least, most = numbers.amin(-1), numbers.amax(-1)
        scale = ((most - least) / 15).bfloat16()
        middle = (least + 8 * scale.float()).bfloat16()
        step = torch.where(scale == 0, 1.0, scale.float())
        integers = torch.round((numbers - middle.float()[..., None]) / step[..., None]) + 8
        w_ED[begin : begin + _BLOCK] = integers.clamp(0, 15).int().flatten(1)
        scales[:, begin : begin + _BLOCK, 0], scales[:, begin : begin + _BLOCK, 1] = scale.t(), middle.t()
    return w_ED, scales
