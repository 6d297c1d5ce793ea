"""Unpacks matrices of AWQ and GPTQ (`packing` has their layout). E: outputs, D: inputs, G: groups of inputs."""

from collections.abc import Mapping, Sequence

import torch

from model.checkpoint.packing import Packing
from model.grouped import Grouped

_IN_ORDER = (0, 1, 2, 3, 4, 5, 6, 7)
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the place among eight outputs of each four bits, from the lowest
_ONES = 0x11111111


def unpacked(packing: Packing, parts: Mapping[str, torch.Tensor]) -> Grouped:
    """The integers as they are stored, in the order of their groups; ValueError for parts that contradict others."""
    if "bias" in parts and parts["bias"].any():
        raise ValueError("its bias is not 0, but Mixtral has none: use the checkpoint that it was made from")
    order, rows = (_AWQ_ORDER, False) if packing.method == "awq" else (_IN_ORDER, True)
    # One addition to eight zeros at once takes back what one subtraction took off, a borrow between them included.
    zero_EG = _integers(parts["qzeros"] + packing.below * _ONES, order, rows=False).t()
    integer_ED = _integers(parts["qweight"], order, rows).t().contiguous()
    scale_EG = parts["scales"].float().t().contiguous()
    order_D = _input_order(parts["g_idx"], scale_EG.shape[1]) if "g_idx" in parts else None
    if order_D is not None:
        integer_ED = integer_ED[:, order_D]
    return Grouped(integer_ED, scale_EG, scale_EG * (8.0 - zero_EG), order_D)


def _integers(packed: torch.Tensor, order: Sequence[int], rows: bool) -> torch.Tensor:
    """A byte for each: eight `rows` of a packed one, else eight columns."""
    count, width = packed.shape
    shape = (count, 8, width) if rows else (count, width, 8)
    integers = torch.empty(shape, dtype=torch.uint8, device=packed.device)
    for nibble, place in enumerate(order):
        integers.select(1 if rows else 2, place).copy_((packed >> 4 * nibble) & 15)
    return integers.view(8 * count, width) if rows else integers.view(count, 8 * width)


def _input_order(group_D: torch.Tensor, groups: int) -> torch.Tensor | None:
    """Inputs by their groups; None if they are in order. ValueError unless all groups are of one size."""
    sorted_D, order_D = torch.sort(group_D, stable=True)
    in_order_D = torch.arange(len(group_D), device=group_D.device) * groups // len(group_D)
    if not torch.equal(sorted_D.long(), in_order_D):
        raise ValueError("its g_idx does not name every group as often as any other: copy the checkpoint again")
    return None if torch.equal(group_D.long(), in_order_D) else order_D
