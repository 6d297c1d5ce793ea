"""Which row counts give the same bits: a row's result may depend on how many others are computed with it.

R: rows, D: width of a row, E: width of its result.
"""

from collections.abc import Callable, Sequence

import torch

TILE = 64
Rows = Callable[[torch.Tensor], torch.Tensor]  # [R, D] -> [R, E], each row from its own alone
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def same(a_RE: torch.Tensor, b_RE: torch.Tensor) -> bool:
    """Whether the rows that both have are equal bit by bit."""
    rows = min(len(a_RE), len(b_RE))
    bits_a, bits_b = (x[:rows].contiguous().view(_INTEGERS[x.element_size()]) for x in (a_RE, b_RE))
    return torch.equal(bits_a, bits_b)


def kinds(work: Rows, x_RD: torch.Tensor, counts: Sequence[int], least: int = 1 << 13) -> list[list[int]]:
    """The row counts, grouped by what they give: in the first group are those that give every row what it gets alone.

    Rounding hides most differences of order in a sum, so at each count rows are taken in blocks until all rows have
    been through or `least` numbers can be compared; at least `TILE` rows are. `counts` ascends from 1.
    Example: [[1], [2, 3, 4], [5]] says that a row alone, among 2 to 4 and among 5 is three different results.
    """
    wide = work(x_RD[:1]).shape[1]
    compared_RD = x_RD[: max(TILE, -(-least // wide))]
    groups, shown = list[list[int]](), list[torch.Tensor]()
    for count in counts:
        blocks = compared_RD.split(count) if count <= len(compared_RD) else [x_RD[:count]]
        y_RE = torch.cat([work(block_RD) for block_RD in blocks if len(block_RD) == count])
        at = next((i for i, known in enumerate(shown) if same(known, y_RE)), len(groups))
        if at == len(groups):
            groups.append([])
            shown.append(y_RE)
        groups[at].append(count)
        shown[at] = max(shown[at], y_RE, key=len)
    return groups


def spans(some: Sequence[int], counts: Sequence[int]) -> str:
    """Row counts as ranges, a range being neighbours among all `counts`: `1, 3-5`; `none` where there are none."""
    runs: list[list[int]] = []
    for count in some:
        if runs and counts.index(runs[-1][-1]) + 1 == counts.index(count):
            runs[-1].append(count)
        else:
            runs.append([count])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) or "none"


def tile_seam(product: Rows, x_RD: torch.Tensor) -> str:
    """Where a product of always `TILE` rows gives a row other bits, empty where it never does: the row moved through
    all positions, or kept in its place among zeros, large numbers and NaN. `x_RD` has `TILE` rows.
    """
    whole_RE = product(x_RD)
    for offset in range(1, TILE):
        if not same(product(x_RD.roll(offset, 0)).roll(-offset, 0), whole_RE):
            return f"moved by {offset}"
    among = {"zeros": torch.zeros_like(x_RD), "large": x_RD.flip(0) * 1e3, "NaN": torch.full_like(x_RD, torch.nan)}
    for name, others_RD in among.items():
        for row in range(TILE):
            tile_RD = others_RD.clone()
            tile_RD[row] = x_RD[row]
            if not same(product(tile_RD)[row : row + 1], whole_RE[row : row + 1]):
                return f"row {row} among {name}"
    return ""
