"""Gumbel(0, 1) noise hashed from its purpose, so that any sample can be repeated anywhere: integer arithmetic up to two
logarithms, so that machines can differ only in the last bits of a double.
"""

from collections.abc import Sequence

import torch

from model.device.host_link import put

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def noise_key(seed: int, output_index: int, position: int) -> int:
    """A 64-bit key for one sample: SplitMix64's finaliser (Steele et al. 2014), chained over its arguments."""
    key = _mix(seed & _MASK64)
    key = _mix((key + _GOLDEN * (output_index + 1)) & _MASK64)
    return _mix((key + _GOLDEN * (position + 1)) & _MASK64)


def gumbel_noise(keys: Sequence[int], vocab: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Gumbel(0, 1) noise, float64 [len(keys), vocab]; element (b, v) depends on keys[b] and v alone."""
    key_B1 = put([_signed(k) for k in keys], device, torch.int64)[:, None]
    ids_V = torch.arange(1, vocab + 1, dtype=torch.int64, device=device) * _signed(_GOLDEN)
    bits_BV = key_B1 + ids_V  # int64 arithmetic wraps, as the hash wants
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits_BV = (bits_BV ^ _shift_right(bits_BV, shift)) * _signed(factor)
    bits_BV = bits_BV ^ _shift_right(bits_BV, 31)
    uniform = (_shift_right(bits_BV, 11).double() + 0.5) * 2.0**-53  # 53 bits, never 0 or 1
    return -torch.log(-torch.log(uniform))


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift of int64 (torch's own keeps the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
