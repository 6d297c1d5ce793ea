"""Rows as bytes and back."""

import numpy as np
import pytest
import torch

from model.wire import DTYPE_CODES, tensor_bytes, tensor_from

DTYPES = list(DTYPE_CODES)
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (128, 64), (0, 64), (3, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_come_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    rows = torch.randn(shape).to(dtype)
    data = tensor_bytes(rows)
    assert data.nbytes == rows.nbytes and data.ndim == 1
    for received in (b"head" + bytes(data), np.frombuffer(b"head" + bytes(data), dtype=np.uint8)):
        back = tensor_from(received, 4, *shape, DTYPE_CODES[dtype])
        assert back.dtype == dtype and back.shape == rows.shape and torch.equal(back, rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values_come_back(dtype: torch.dtype) -> None:
    rows = torch.tensor([[torch.inf, -torch.inf, torch.nan, -0.0, torch.finfo(dtype).tiny / 2]]).to(dtype)
    back = tensor_from(bytes(tensor_bytes(rows)), 0, 1, 5, DTYPE_CODES[dtype])
    assert torch.equal(back.view(torch.int8), rows.view(torch.int8))


def test_rows_taken_from_the_middle_are_written_in_order() -> None:
    wide = torch.arange(24.0).view(4, 6)
    for part in (wide[1:3], wide[:, 1:3], wide.T):
        assert torch.equal(tensor_from(bytes(tensor_bytes(part)), 0, part.shape[0], part.shape[1], 0), part)


def test_tensor_made_in_inference_mode_can_be_sent() -> None:
    with torch.inference_mode():
        rows = torch.ones(2, 3, dtype=torch.bfloat16) * 2
        assert torch.equal(tensor_from(bytes(tensor_bytes(rows)), 0, 2, 3, 1), rows)


def test_bytes_are_not_copied_on_arrival() -> None:
    message = np.zeros(24, dtype=np.uint8)
    rows = tensor_from(message, 8, 2, 2, 0)
    message[8:] = np.frombuffer(np.array([1, 2, 3, 4], dtype=np.float32).tobytes(), dtype=np.uint8)
    assert rows.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("length", [0, 1, 47, 49, 96])
def test_length_other_than_announced_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes cannot be 3 x 4 of torch.float32"):
        tensor_from(b"12345678" + b"\0" * length, 8, 3, 4, 0)


@pytest.mark.parametrize(("rows", "columns"), [(0, 64), (64, 0)])
def test_bytes_behind_no_rows_are_refused(rows: int, columns: int) -> None:
    with pytest.raises(ValueError, match="4 bytes cannot be"):
        tensor_from(b"1234", 0, rows, columns, 0)


def test_codes_stay_what_they_were() -> None:
    """Other codes are another version of the message (actors/transport/rows.py)."""
    assert {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2} == DTYPE_CODES


def test_unknown_dtype_code_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype code 3 is unknown"):
        tensor_from(b"1234", 0, 1, 1, 3)
