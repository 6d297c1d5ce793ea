"""A row of a product is the same bits however many rows are computed together: the identity of tokens rests on it."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from model.linear import keep_one_order, linear
from model.matrices.packed import Agreement, agreement, cancelling
from tests.pretend_cuda import pretend_cuda

# (in, out): of tiny tests, of the demo checkpoint, odd, and large enough for other kernels
SHAPES = [
    (1, 1),
    (8, 8),
    (20, 6),
    (33, 17),
    (64, 997),
    (97, 33),
    (128, 512),
    (256, 128),
    (1024, 96),
    (128, 2048),
    (512, 2048),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_row_has_the_same_bits_at_every_row_count(shape: tuple[int, int], dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(64, shape[0], generator=source).to(dtype)
    weight = torch.randn(shape[1], shape[0], generator=source).to(dtype)
    alone = torch.cat([linear(row[None], weight) for row in x])
    for rows in range(1, 65):
        assert torch.equal(linear(x[:rows], weight), alone[:rows]), rows
        elsewhere = torch.randperm(64, generator=source)[:rows]  # other places, other neighbours
        assert torch.equal(linear(x[elsewhere], weight), alone[elsewhere]), rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(32, 8), (32, 24), (32, 32), (32, 64), (16, 97), (64, 64), (40, 103)], ids=str)
def test_row_of_a_tiny_product_has_the_same_bits_at_every_row_count(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """oneDNN takes another kernel where rows x E x D comes to 4,096: two to four rows of these."""
    for seed in range(20):
        source = torch.Generator().manual_seed(seed)
        x = torch.randn(50, shape[0], generator=source).to(dtype)
        weight = torch.randn(shape[1], shape[0], generator=source).to(dtype)
        many = linear(x, weight)
        for rows in (1, 2, 3, 4, 5, 8, 16, 17, 33):
            assert torch.equal(linear(x[:rows], weight), many[:rows]), rows


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(512, 128), (96, 1024), (2048, 512), (1024, 1536), (512, 3584)], ids=str)
def test_row_has_the_same_bits_where_only_rounding_is_left(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Numbers that cancel show another order of adding nearly always, random ones of 16 bits seldom."""
    weight = cancelling(*shape).to(dtype)
    assert agreement(lambda x: linear(x, weight), weight) == Agreement(128, True)


@pytest.mark.parametrize("rows", [100, 129, 513])
def test_row_has_the_same_bits_in_a_long_prefill(rows: int) -> None:
    source = torch.Generator().manual_seed(2)
    x, weight = torch.randn(rows, 128, generator=source), torch.randn(96, 128, generator=source)
    many = linear(x, weight)
    for row in (0, 1, 23, 24, 47, 95, 99, rows - 1):
        assert torch.equal(many[row], linear(x[row : row + 1], weight)[0]), row


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 2, 23, 24, 25, 48, 70])
def test_value_is_the_product(rows: int, dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(3)
    x, weight = torch.randn(rows, 40, generator=source).to(dtype), torch.randn(30, 40, generator=source).to(dtype)
    exact = F.linear(x.double(), weight.double())
    product = linear(x, weight)
    assert product.shape == (rows, 30) and product.dtype == dtype
    assert torch.allclose(product.double(), exact, rtol=4 * torch.finfo(dtype).eps, atol=40 * torch.finfo(dtype).eps)


def test_arguments_are_left_alone() -> None:
    wide, weight = torch.randn(5, 20), torch.randn(3, 10)
    before, part = wide.clone(), wide[:, ::2]  # not contiguous
    assert torch.allclose(linear(part, weight), F.linear(part, weight), atol=1e-5)
    assert torch.equal(wide, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tiny_products_are_made_in_blocks_of_one_size(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU shows the seam is chance of its kernels, so this is what keeps every one of them from it."""
    seen = set()
    product = F.linear

    def watched(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen.add(len(x))
        return product(x, weight)

    monkeypatch.setattr("model.linear.F.linear", watched)
    for rows in (1, 2, 3, 4, 23, 24, 25, 70):
        linear(torch.ones(rows, 64, dtype=dtype), torch.ones(32, 64, dtype=dtype))
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "wide", "shapes"), [(64, 32, {32, 33, 64, 70}), (32, 64, {2, 3, 31, 33, 64, 70})])
def test_on_cuda_products_have_rows_enough_and_fp32_one_shape(
    dtype: torch.dtype, width: int, wide: int, shapes: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large product that sums more than it gives is not made of few rows, and no 16-bit one of a single row."""
    monkeypatch.setattr("model.linear._CUDA_LARGE", 64 * 32)
    made, product = list[int](), F.linear

    def watched(x_RD: torch.Tensor, weight_ED: torch.Tensor) -> torch.Tensor:
        made.append(len(x_RD))
        return product(x_RD, weight_ED)

    monkeypatch.setattr("model.linear.F.linear", watched)
    x, weight = torch.randn(70, width).to(dtype), torch.randn(wide, width).to(dtype)
    with pretend_cuda(monkeypatch):
        on_cuda = [linear(x[:rows].to("cuda"), weight.to("cuda")) for rows in (1, 2, 3, 31, 33, 64, 70)]
        assert set(made) == (shapes if dtype == torch.bfloat16 else {64})
    for found in on_cuda:
        assert torch.allclose(found.float(), F.linear(x[: len(found)], weight).float(), atol=1e-4, rtol=1e-2)


def test_cuda_is_told_to_keep_one_order_and_an_older_torch_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = list[str]()
    matmul = SimpleNamespace(allow_bf16_reduced_precision_reduction=True, allow_fp16_reduced_precision_reduction=True)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    monkeypatch.setattr(torch.backends.cuda, "preferred_blas_library", told.append)
    keep_one_order(torch.device("cpu"))
    assert told == []
    keep_one_order(torch.device("cuda"))
    assert told == ["cublaslt"]
    assert vars(matmul) == dict.fromkeys(vars(matmul), (False, False))
    monkeypatch.delattr(torch.backends.cuda, "preferred_blas_library")
    keep_one_order(torch.device("cuda"))
    assert "may get other tokens in another batch" in caplog.text
