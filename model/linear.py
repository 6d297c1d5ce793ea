"""Matrix products whose rows do not depend on how many rows are computed together."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

log = logging.getLogger(__name__)

_TINY = 4096  # numbers in a weight; in a larger one, two rows or more give the same bits at any row count
_BLOCK = 24  # a multiple of the CPU kernels' row tiles (4, 6, 8, 12)
FEW = 32  # rows up to which all CPU kernels of 16 bits give the same bits
_TRIAL = 1024  # half of the inputs of the trial
_CUDA_BLOCK = 64
_CUDA_LEAST = 32  # rows of a large product that sums more numbers than it gives
_CUDA_LARGE = 1 << 20  # numbers in a weight; a smaller one is read fast, however few blocks of the card read it

# CUDA: the library, and two switches: it must not add partial sums in 16 bits, and it must not split a sum over blocks
# of the card (split-K), which it does at some row counts only. Among torch's libraries only cuBLASLt has the second.
CUDA_LIBRARY, CUDA_REDUCED = "cublaslt", (False, False)
CUDA_SWITCHES = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")


def linear(x_RD: torch.Tensor, weight_ED: torch.Tensor) -> torch.Tensor:
    """`x @ weight.T`, shape [R, E]. A row's result is the same alone and in any batch, bit for bit
    (docs/adr/0004-token-identity.md); on CUDA only after `keep_one_order`.

    CPU fp32 kernels sum in another order for other row counts: below 4 rows (reported for Zen 4), below 16 with
    AVX-512, and with AVX2 wherever the rows leave 1 to 3 over after tiles of 6. So fp32 products are computed in blocks
    of one fixed shape, the last one padded. bf16 and fp16 kernels change at a single row (a product of matrix and
    vector), and oneDNN's where rows x E x D reaches 4,096: so products of tiny weights are computed in blocks, too.
    With AMX bf16 kernels change above 32 rows: there more are computed in turns.
    """
    rows = x_RD.shape[0]
    if rows == 0:
        return F.linear(x_RD, weight_ED)
    on_cuda, fp32 = x_RD.device.type == "cuda", x_RD.dtype == torch.float32
    if fp32 or (not on_cuda and weight_ED.numel() <= _TINY):
        return _in_blocks(x_RD, weight_ED, _CUDA_BLOCK if on_cuda else _BLOCK)
    is_deep = weight_ED.shape[1] > weight_ED.shape[0] and weight_ED.numel() >= _CUDA_LARGE
    if on_cuda and rows < _CUDA_LEAST and is_deep:
        # Without split-K few rows leave most of a card idle: 306 us at 8 rows, 53 at 32, of 8x7B's w2 on an H100.
        return F.linear(_padded(x_RD, _CUDA_LEAST), weight_ED)[:rows]
    if rows == 1:
        return F.linear(x_RD.expand(2, -1), weight_ED)[:1]
    if not on_cuda and rows > FEW and few_rows_only(x_RD.dtype):
        return in_turns(lambda part_RD: F.linear(part_RD, weight_ED), x_RD, FEW)
    return F.linear(x_RD, weight_ED)


def in_turns(product: Callable[[torch.Tensor], torch.Tensor], x_RD: torch.Tensor, most: int) -> torch.Tensor:
    """A product of at most `most` rows at a time, and of two at least, as `linear` wants it. Each turn is put into the
    result at once, because logits are too large to be held twice.
    """
    turns = list(x_RD.split(most))
    if len(turns) > 1 and len(turns[-1]) == 1:
        turns[-2:] = torch.cat(turns[-2:]).split(most - 1)
    first_RE = product(turns[0])
    found_RE = first_RE.new_empty(len(x_RD), first_RE.shape[1])
    found_RE[: len(first_RE)] = first_RE
    begin = len(first_RE)
    for part_RD in turns[1:]:
        found_RE[begin : begin + len(part_RD)] = product(part_RD)
        begin += len(part_RD)
    return found_RE


@functools.cache
def few_rows_only(dtype: torch.dtype) -> bool:
    """Whether this machine's products in a 16-bit dtype have other bits above FEW rows. Numbers that cancel show it."""
    source = torch.Generator().manual_seed(0)
    half_RD, half_ED = torch.randn(2 * FEW, _TRIAL, generator=source), torch.randn(96, _TRIAL, generator=source)
    x_RD = torch.cat([half_RD, -half_RD], 1).to(dtype)
    weight_ED = torch.cat([half_ED, half_ED], 1).to(dtype)
    few = F.linear(x_RD[:FEW], weight_ED)
    return not all(torch.equal(F.linear(x_RD[:rows], weight_ED)[:FEW], few) for rows in (FEW + 1, 2 * FEW))


def keep_one_order(device: torch.device) -> None:
    """Make all products of this process on a CUDA device sum in one order, whatever the row count."""
    if device.type != "cuda":
        return
    matmul: Any = torch.backends.cuda.matmul
    try:
        torch.backends.cuda.preferred_blas_library(CUDA_LIBRARY)
        for switch in CUDA_SWITCHES:
            setattr(matmul, switch, CUDA_REDUCED)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        log.warning(
            "this torch (%s) cannot be told not to split sums: a request may get other tokens in another batch: %s",
            torch.__version__,
            error,
        )


def _in_blocks(x_RD: torch.Tensor, weight_ED: torch.Tensor, block: int) -> torch.Tensor:
    rows = len(x_RD)
    if rows <= block:
        return F.linear(_padded(x_RD, block), weight_ED)[:rows]
    found_RE = x_RD.new_empty(rows, len(weight_ED))  # a list of blocks would be held beside what is made of it
    for at in range(0, rows, block):
        part = x_RD[at : at + block]
        found_RE[at : at + block] = F.linear(_padded(part, block), weight_ED)[: len(part)]
    return found_RE


def _padded(x_RD: torch.Tensor, rows: int) -> torch.Tensor:
    """The rows, then zero rows up to `rows`."""
    if x_RD.shape[0] == rows:
        return x_RD
    padded = x_RD.new_zeros((rows, x_RD.shape[1]))
    padded[: x_RD.shape[0]] = x_RD
    return padded
