"""4-bit matrices: near to what they stand for, and a row with the same bits in any batch."""

from typing import Any

import pytest
import torch

from model.grouped import Grouped
from model.matrices.int4 import int4_matrix


def weight(outputs: int, inputs: int) -> torch.Tensor:
    return (torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(4)) * 0.05).bfloat16()


def rows(count: int, inputs: int) -> torch.Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(count)).bfloat16()


@pytest.mark.parametrize("shape", [(128, 512), (96, 64), (10, 96), (300, 256)], ids=str)
def test_it_is_near_to_what_it_stands_for(shape: tuple[int, int]) -> None:
    stored, x = weight(*shape), rows(33, shape[1])
    matrix = int4_matrix(stored)
    exact, found = x.float() @ stored.float().t(), matrix(x).float()
    assert found.shape == exact.shape
    assert ((found - exact).norm(dim=1) / exact.norm(dim=1)).max() < 0.2
    assert matrix.nbytes < 0.6 * stored.nbytes or shape[0] % 64, "padding apart"


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    matrix, x = int4_matrix(weight(128, 512)), rows(40, 512)
    whole = matrix(x)
    for first, count in ((0, 1), (5, 1), (3, 17), (10, 30), (0, 0)):
        assert torch.equal(matrix(x[first : first + count]), whole[first : first + count])


def test_a_group_of_one_value_is_exact() -> None:
    stored = torch.full((64, 128), 0.25).bfloat16()
    x = rows(3, 128)
    assert torch.allclose(int4_matrix(stored)(x).float(), x.float() @ stored.float().t(), rtol=0.02, atol=0.02)


def test_sizes_that_no_product_takes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"matrix of 100 inputs: set experts\.quantization"):
        int4_matrix(weight(64, 100))


def test_what_is_no_number_stays_none() -> None:
    x = rows(4, 512)
    x[1, 7] = float("nan")
    found = int4_matrix(weight(64, 512))(x)
    assert not found[1].isfinite().any() and found[[0, 2, 3]].isfinite().all()


def grouped(outputs: int, inputs: int, group: int, order_D: torch.Tensor | None = None) -> Grouped:
    """As a folder has it: scales of 16 bits and whole zeros."""
    source = torch.Generator().manual_seed(group)
    integer_ED = torch.randint(0, 16, (outputs, inputs), dtype=torch.uint8, generator=source)
    scale_EG = torch.rand((outputs, inputs // group), generator=source).half().float()
    zero_EG = torch.randint(0, 16, scale_EG.shape, generator=source)
    return Grouped(integer_ED, scale_EG, scale_EG * (8 - zero_EG), order_D)


@pytest.mark.parametrize("group", [32, 64, 128, 256, 512])
@pytest.mark.parametrize("in_order", [True, False])
def test_integers_stay_and_only_scales_and_rows_are_rounded(group: int, in_order: bool) -> None:
    """Results are rounded to bf16, too: the limit is that of three roundings to 8 bits."""
    order_D = None if in_order else torch.randperm(512, generator=torch.Generator().manual_seed(1))
    weight_ED, x = grouped(80, 512, group, order_D), rows(9, 512)
    exact = x.float() @ weight_ED.dense(torch.float32).t()
    found = int4_matrix(weight_ED)(x).float()
    assert ((found - exact).norm() / exact.norm()).item() < 0.005


def test_scales_that_bf16_has_are_not_rounded() -> None:
    weight_ED = grouped(64, 128, 32)
    powers = torch.full_like(weight_ED.scale_EG, 0.25)
    weight_ED = Grouped(weight_ED.integer_ED, powers, powers * 3)
    one_hot = torch.eye(128).bfloat16()
    assert torch.equal(int4_matrix(weight_ED)(one_hot).float().t(), weight_ED.dense(torch.float32))


def test_it_is_packed_in_blocks_as_it_would_be_as_a_whole() -> None:
    """The operator packs outputs by blocks of their own, so that integers of 32 bits need not be there all at once."""
    operators: Any = torch.ops.aten
    weight_ED = grouped(640, 128, 128)
    whole = operators._convert_weight_to_int4pack_for_cpu(weight_ED.integer_ED.int(), 1)
    scales = torch.stack((weight_ED.scale_EG, weight_ED.middle_EG), -1).bfloat16().transpose(0, 1).contiguous()
    x = rows(5, 128)
    expected = operators._weight_int4pack_mm_for_cpu(x, whole, 128, scales)
    matrix = int4_matrix(weight_ED)
    assert torch.equal(matrix(x), expected) and matrix.nbytes == whole.nbytes + scales.nbytes


def test_groups_that_no_product_takes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"64 inputs in groups of 16: set experts\.quantization to int8 or none"):
        int4_matrix(grouped(64, 64, 16))


def test_matrices_are_stacked_if_their_inputs_have_one_order() -> None:
    backwards, forwards = torch.arange(63, -1, -1), torch.arange(64)
    first, second = grouped(8, 64, 32, backwards), grouped(24, 64, 32, backwards.clone())
    both = Grouped.stacked([first, second])
    expected = torch.cat((first.dense(torch.float32), second.dense(torch.float32)))
    assert torch.equal(both.dense(torch.float32), expected)
    for other in (grouped(8, 64, 32), grouped(8, 64, 32, forwards)):
        with pytest.raises(
            ValueError, match=r"different orders \(desc_act\): set experts\.quantization to int8 or none"
        ):
            Grouped.stacked([first, other])
