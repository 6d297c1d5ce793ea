"""4-bit matrices: near to what they stand for, and a row with the same bits in any batch."""

import pytest
import torch

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
    with pytest.raises(ValueError, match=r"matrix of 100 inputs: set experts\.quantization=none"):
        int4_matrix(weight(64, 100))


def test_what_is_no_number_stays_none() -> None:
    x = rows(4, 512)
    x[1, 7] = float("nan")
    found = int4_matrix(weight(64, 512))(x)
    assert not found[1].isfinite().any() and found[[0, 2, 3]].isfinite().all()
