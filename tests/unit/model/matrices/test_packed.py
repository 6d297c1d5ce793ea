"""Packed matrices give the bits of the stored ones, and each row the same bits in any batch."""

import pytest
import torch

from model.linear import linear
from model.matrices import packed
from model.matrices.matrix import Product
from model.matrices.packed import Agreement, Packer, agreement, cancelling


def weight(outputs: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(5)).to(dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape", [(512, 128), (256, 512), (1000, 96), (97, 1024), (2048, 256), (64, 3584), (256, 14336)], ids=str
)
def test_a_packed_matrix_gives_the_same_bits(shape: tuple[int, int], threads: int) -> None:
    """Of numbers that cancel, so that another order of adding shows."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        stored, x = cancelling(*shape), cancelling(300, shape[1], seed=1)
        x[:, shape[1] // 2 :] *= -1
        matrix = Packer().matrix(stored)
        for rows in (0, 1, 2, 3, 8, 17, 33, 64, 65, 129, 300):
            assert torch.equal(matrix(x[:rows]), linear(x[:rows], stored)), rows
        whole = matrix(x)
        for rows in (*range(1, 70), 95, 127, 128, 129, 130, 192, 193, 256, 257, 295):
            assert torch.equal(whole[5 : 5 + rows], matrix(x[5 : 5 + rows])), rows
    finally:
        torch.set_num_threads(before)
    assert matrix.nbytes == stored.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_dtypes_and_small_weights_stay_as_they_are(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_packed", lambda stored, layout: pytest.fail("it was packed"))
    for stored in (weight(512, 256, dtype), weight(8, 256)):
        x = torch.randn(3, 256).to(stored.dtype)
        assert torch.equal(Packer().matrix(stored)(x), linear(x, stored))


def test_a_product_whose_rows_depend_on_their_batch_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def leaky(stored: torch.Tensor, layout: int | None) -> Product:
        tried.append(layout)
        return lambda x: linear(x, stored) + len(x) * len(x)

    monkeypatch.setattr(packed, "_packed", leaky)
    packer, x = Packer(), torch.randn(4, 256).bfloat16()
    for _ in range(2):
        stored = weight(512, 256)
        assert torch.equal(packer.matrix(stored)(x), linear(x, stored))
    assert tried == [None, 1], "one trial of each layout for weights of one shape"


def test_the_layout_with_which_more_rows_agree_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def kernel(stored: torch.Tensor, layout: int | None) -> Product:
        most = 32 if layout is None else 64

        def product(x: torch.Tensor) -> torch.Tensor:
            calls.append((layout, len(x)))
            return linear(x, stored) + (len(x) > most) + (len(x) == 1)

        return product

    monkeypatch.setattr(packed, "_packed", kernel)
    stored, x = weight(512, 256), torch.randn(150, 256).bfloat16()
    matrix = Packer().matrix(stored)
    calls.clear()
    assert torch.equal(matrix(x), linear(x, stored))
    assert torch.equal(matrix(x[:1]), linear(x[:1], stored))
    assert calls == [(1, 64), (1, 64), (1, 22), (1, 2)], "turns of 64 rows; a single row gets company"


def test_the_trial_finds_rows_that_are_added_up_in_another_order() -> None:
    stored = cancelling(64, 2048)

    def another_order(x: torch.Tensor) -> torch.Tensor:
        return linear(x, stored) if len(x) not in (1, 3) else linear(x.flip(1), stored.flip(1))

    assert agreement(lambda x: linear(x, stored), stored) == Agreement(128, True)
    assert agreement(another_order, stored) == Agreement(2, False)
    assert agreement(lambda x: linear(x.flip(1), stored.flip(1)), stored) == Agreement(0, False)


def test_a_torch_without_the_operators_multiplies_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_can_pack", lambda stored: False)
    stored, x = weight(512, 256), torch.randn(4, 256).bfloat16()
    assert torch.equal(Packer().matrix(stored)(x), linear(x, stored))
