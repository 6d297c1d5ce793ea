"""Matrices of 8-bit integers, with one definition for every engine. R: rows, E: outputs, D: inputs.

A weight is rounded to integers of -127 to 127 with a scale for each output, a row of the input with a scale of its own:

    w = round(weight[e] / u[e])    u[e] = max |weight[e]| / 127
    q = round(x[r] / s[r])         s[r] = max |x[r]| / 127
    y[r, e] = float(sum(q * w)) * u[e] * s[r]

The sum is one of integers and therefore exact, so that whatever engine computes it gives the same bits: alone, in any
batch, split over replicas, on another machine. `torch.ao`'s dynamic quantization has one scale for a whole batch, with
which a row depends on its neighbours (and is 27 % wrong beside an outlier; this is 1.2 %, whichever the neighbours).
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F

from model.matrices.matrix import Matrix, Product

_MOST = 127
_BLOCK = 256  # outputs that are rounded at a time, because that needs them in fp32
_TRIAL = 4096  # inputs of the trial: the largest products, added up


def int8_matrix(weight_ED: torch.Tensor) -> Matrix:
    """ValueError where no engine of this torch adds integers exactly."""
    w_ED, u_E = rounded(weight_ED)
    return Matrix(_exact(w_ED, u_E, weight_ED.dtype), w_ED.nbytes + u_E.nbytes)


def rounded(weight_ED: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers [E, D] and scales [E] of a weight."""
    w_ED = torch.empty(weight_ED.shape, dtype=torch.int8, device=weight_ED.device)
    u_E = torch.empty(len(weight_ED), device=weight_ED.device)
    for begin in range(0, len(weight_ED), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        numbers = weight_ED[part].float()
        u_E[part] = numbers.abs().amax(1) / _MOST
        w_ED[part] = torch.round(numbers / _nonzero(u_E[part, None]))
    return w_ED, u_E


def rounded_rows(x_RD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers as fp32 [R, D], and scales [R, 1]. NaN or infinity in a row makes its scale, and so its result, one."""
    s_R1 = x_RD.abs().amax(1, keepdim=True).float() / _MOST
    return (x_RD / _nonzero(s_R1)).round_(), s_R1


def _nonzero(scales: torch.Tensor) -> torch.Tensor:
    return torch.where(scales == 0, 1.0, scales)


def _exact(w_ED: torch.Tensor, u_E: torch.Tensor, dtype: torch.dtype) -> Product:
    """The first engine whose sums are exact: a CPU without 8-bit dot products may add pairs in 16 bits, saturated."""
    worst_ED = torch.full((8, _TRIAL), _MOST, dtype=torch.int8, device=w_ED.device)
    rows_RD, ones_E = torch.full((3, _TRIAL), float(_MOST), device=w_ED.device), torch.ones(8, device=w_ED.device)
    for engine in (_fbgemm, _integers):
        try:
            found = engine(worst_ED, ones_E)(rows_RD)
            if bool((found == float(_MOST * _MOST * _TRIAL)).all()):
                product = engine(w_ED, u_E)
                return lambda x_RD: _scaled(product, x_RD, dtype)
        except (AttributeError, RuntimeError):  # this torch or device has no such engine
            continue
    raise ValueError(
        "no 8-bit product of this machine adds up exactly: set experts.quantization and head.quantization to none"
    )


def _scaled(product: Product, x_RD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not len(x_RD):
        return product(x_RD.new_zeros((1, x_RD.shape[1]), dtype=torch.float32))[:0].to(dtype)
    q_RD, s_R1 = rounded_rows(x_RD)
    return product(q_RD).mul_(s_R1).to(dtype)


def _fbgemm(w_ED: torch.Tensor, u_E: torch.Tensor) -> Product:
    """fbgemm takes fp32 rows and rounds them by a scale and a zero: with 1 and 128 it finds our integers."""
    operators: Any = torch.ops.quantized
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will take this type of tensors away one day
        zeros = torch.zeros(len(u_E), dtype=torch.int64)
        stored = torch._make_per_channel_quantized_tensor(w_ED, u_E.double(), zeros, 0)
    packed = operators.linear_prepack(stored, None)
    return lambda q_RD: operators.linear_with_input_q_dq_qweight_dq_output_fp32(q_RD, 1.0, 128, packed)


def _integers(w_ED: torch.Tensor, u_E: torch.Tensor) -> Product:
    """Halves of 6 bits and one, because 7-bit integers cannot overflow pairs of 16 bits; rows and outputs are padded to
    what CUDA takes, 32 and multiples of 8.
    """
    outputs = len(w_ED)
    w_DE = F.pad(w_ED, (0, 0, 0, -outputs % 8)).t().contiguous()

    def product(q_RD: torch.Tensor) -> torch.Tensor:
        rows = max(32, -(-len(q_RD) // 8) * 8)
        q = torch.zeros((rows, q_RD.shape[1]), dtype=torch.int8, device=q_RD.device)
        q[: len(q_RD)] = q_RD
        half = q // 2
        sums = 2 * torch._int_mm(half, w_DE) + torch._int_mm(q - 2 * half, w_DE)
        return sums[: len(q_RD), :outputs].float() * u_E

    return product
