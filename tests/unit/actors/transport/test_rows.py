"""Messages between head and experts: header and rows, there and back."""

import numpy as np
import pytest
import torch

from actors.transport.rows import HEADER_BYTES, LARGE_BYTES, RowsHeader, decode_header, encode_rows
from model.wire import DTYPE_CODES, tensor_bytes, tensor_from

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")

HEADERS = [
    RowsHeader(0, 0, 0, 0),
    RowsHeader(1, 31, 7, 4096, 12_345_678_901),
    RowsHeader(2, 2**16 - 1, 2**32 - 1, 2**32 - 1, 2**64 - 1),
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_header_comes_back(header: RowsHeader) -> None:
    assert decode_header(encode_rows(header, memoryview(b""))) == header


@pytest.mark.parametrize("rows", [0, 1, 33, 1100])
@pytest.mark.parametrize("dtype", list(DTYPE_CODES), ids=str)
def test_rows_come_back_bit_for_bit(dtype: torch.dtype, rows: int) -> None:
    sent = torch.randn(rows, 256).to(dtype)
    message = encode_rows(RowsHeader(DTYPE_CODES[dtype], 3, rows, 256), tensor_bytes(sent))
    assert len(message) == HEADER_BYTES + sent.nbytes
    h = decode_header(message)
    assert torch.equal(tensor_from(message, HEADER_BYTES, h.rows, h.columns, h.dtype_code), sent)


@pytest.mark.parametrize("size", [0, 1000, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1])
def test_small_messages_are_bytes_and_large_ones_buffers(size: int) -> None:
    rows = bytes(range(256)) * (size // 256 + 1)
    message = encode_rows(HEADERS[0], memoryview(rows)[:size])
    assert isinstance(message, bytes if size < LARGE_BYTES else np.ndarray)
    assert bytes(message)[HEADER_BYTES:] == rows[:size]


def test_header_keeps_rows_aligned() -> None:
    assert HEADER_BYTES % 8 == 0


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1])
def test_message_shorter_than_a_header_is_refused(length: int) -> None:
    message = bytes(encode_rows(HEADERS[0], memoryview(b"")))[:length]
    with pytest.raises(ValueError, match=f"{length} bytes are no rows message"):
        decode_header(message)


@pytest.mark.parametrize("place", range(4))
def test_message_of_another_version_is_refused(place: int) -> None:
    message = bytearray(bytes(encode_rows(HEADERS[1], memoryview(b"rows"))))
    message[place] ^= 1
    with pytest.raises(ValueError, match="of another version: restart experts and head together"):
        decode_header(bytes(message))


@pytest.mark.parametrize("place", range(8, 16))
def test_damaged_count_does_not_fit_the_rows(place: int) -> None:
    message = bytearray(bytes(encode_rows(RowsHeader(0, 1, 2, 3), memoryview(bytes(24)))))
    message[place] ^= 0x80
    h = decode_header(bytes(message))
    with pytest.raises(ValueError, match="24 bytes cannot be"):
        tensor_from(bytes(message), HEADER_BYTES, h.rows, h.columns, h.dtype_code)
