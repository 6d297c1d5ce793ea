"""8-bit matrices: one definition, the same bits by whatever engine, and close to the matrix that they stand for."""

import pytest
import torch

from model.matrices import int8
from model.matrices.int8 import int8_matrix, rounded, rounded_rows
from model.matrices.matrix import Product


def weight(outputs: int = 96, inputs: int = 512) -> torch.Tensor:
    return (torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(4)) * 0.05).bfloat16()


def rows(count: int, inputs: int = 512) -> torch.Tensor:
    x = torch.randn(count, inputs, generator=torch.Generator().manual_seed(count)).bfloat16()
    x[count // 2] *= 40  # an outlier, which is nobody else's business
    return x


def defined(stored: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """As the module's docstring says, with sums in 64 bits."""
    w, u = rounded(stored)
    q, s = rounded_rows(x)
    return ((q.long() @ w.long().t()).to(torch.int32).float() * u * s).bfloat16()


ENGINES = [int8._fbgemm, int8._integers]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.__name__)
@pytest.mark.parametrize(("count", "outputs"), [(1, 96), (2, 96), (7, 97), (33, 96)])
def test_every_engine_gives_the_bits_of_the_definition(
    engine: object, count: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "_fbgemm", engine)
    stored, x = weight(outputs), rows(count)
    assert torch.equal(int8_matrix(stored)(x), defined(stored, x))


def test_cuda_gets_outputs_in_eights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel refuses others, and a vocabulary may have 32,002."""
    asked, product = list[torch.Size](), torch._int_mm

    def watched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        asked.append(b.shape)
        return product(a, b)

    monkeypatch.setattr(torch, "_int_mm", watched)
    found = int8._integers(*rounded(weight(97)))(rounded_rows(rows(3))[0])
    assert found.shape == (3, 97) and set(asked) == {(512, 104)}


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    matrix, x = int8_matrix(weight()), rows(40)
    whole = matrix(x)
    for first, count in ((0, 1), (5, 1), (20, 1), (3, 17), (10, 30)):
        assert torch.equal(matrix(x[first : first + count]), whole[first : first + count])


def test_it_is_near_to_what_it_stands_for() -> None:
    stored, x = weight(), rows(40)
    exact, found = x.float() @ stored.float().t(), int8_matrix(stored)(x).float()
    wrong = (found - exact).norm(dim=1) / exact.norm(dim=1)
    assert wrong.max() < 0.02, "also the outlier's row"
    assert int8_matrix(stored).nbytes < 0.51 * stored.nbytes


def test_no_row_and_rows_of_zeros() -> None:
    matrix = int8_matrix(weight())
    assert matrix(rows(4)[:0]).shape == (0, 96)
    assert not matrix(torch.zeros(3, 512).bfloat16()).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_stays_none(bad: float) -> None:
    x = rows(4)
    x[1, 7] = bad
    found = int8_matrix(weight())(x)
    assert not found[1].isfinite().any() and found[[0, 2, 3]].isfinite().all()


def test_an_engine_that_saturates_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(w: torch.Tensor, u: torch.Tensor) -> Product:
        return lambda q: (q.clamp(-60, 60) @ w.float().t()) * u

    stored, x = weight(), rows(9)
    monkeypatch.setattr(int8, "_fbgemm", saturating)
    assert torch.equal(int8_matrix(stored)(x), defined(stored, x))
    monkeypatch.setattr(int8, "_integers", saturating)
    with pytest.raises(ValueError, match=r"set experts\.quantization and head\.quantization to none"):
        int8_matrix(stored)
