"""Matrix products whose rows do not depend on how many rows are computed together."""

import torch
import torch.nn.functional as F

_TINY = 4096  # numbers of a weight; above, two rows are past the seam
_BLOCK = 24  # a multiple of the row tiles (4, 6, 8, 12) of the CPU kernels that were looked at


def linear(x_RD: torch.Tensor, weight_ED: torch.Tensor) -> torch.Tensor:
    """`x @ weight.T`, shape [R, E]. A row's result is the same alone and in any batch, bit for bit, which the
    identity of tokens rests on (docs/adr/0004-token-identity.md).

    CPU fp32 kernels sum in another order for other row counts: below 4 rows (reported for Zen 4), below 16 with
    AVX-512, and with AVX2 wherever the rows leave 1 to 3 over after tiles of 6. So fp32 products are made in blocks
    of one fixed shape, the last one padded. bf16 and fp16 have a seam at a single row (a product of matrix and
    vector), and oneDNN one where rows x E x D comes to 4,096: so products of tiny weights are made in blocks, too.
    """
    rows = x_RD.shape[0]
    if x_RD.device.type != "cpu" or rows == 0:
        return F.linear(x_RD, weight_ED)
    if x_RD.dtype != torch.float32 and weight_ED.numel() > _TINY:
        return F.linear(x_RD, weight_ED) if rows > 1 else F.linear(x_RD.expand(2, -1), weight_ED)[:1]
    products = [F.linear(_full(block), weight_ED) for block in x_RD.split(_BLOCK)]
    return (products[0] if len(products) == 1 else torch.cat(products))[:rows]


def _full(x_RD: torch.Tensor) -> torch.Tensor:
    """The rows, and zero rows up to a block."""
    if x_RD.shape[0] == _BLOCK:
        return x_RD
    padded = x_RD.new_zeros((_BLOCK, x_RD.shape[1]))
    padded[: x_RD.shape[0]] = x_RD
    return padded
