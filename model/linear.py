"""Matrix products whose rows do not depend on how many rows are computed together."""

import torch
import torch.nn.functional as F

_MIN_ROWS = 16


def linear(x_RD: torch.Tensor, weight_ED: torch.Tensor) -> torch.Tensor:
    """`x @ weight.T`, shape [R, E].

    CPU fp32 kernels sum in another order for few rows than for many (the seam was found below 4 rows on Zen 4
    and below 16 on Sapphire Rapids), so small products are padded to 16: a token's result is then the same alone
    and in any batch, which the identity of tokens rests on (docs/adr/0004-token-identity.md). bf16 products do
    not have that seam.
    """
    rows = x_RD.shape[0]
    if x_RD.dtype != torch.float32 or rows >= _MIN_ROWS or rows == 0 or x_RD.device.type != "cpu":
        return F.linear(x_RD, weight_ED)
    padded = x_RD.new_zeros((_MIN_ROWS, x_RD.shape[1]))
    padded[:rows] = x_RD
    return F.linear(padded, weight_ED)[:rows]
