"""Rotary embeddings against transformers', and what makes them rotary."""

from typing import Any

import pytest
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralRotaryEmbedding, apply_rotary_pos_emb

from model.attention.rope import inverse_frequencies, rotate, rotation

POSITIONS = torch.tensor([0, 1, 2, 63, 64, 1000, 131071, 5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("head_dim", "theta"), [(2, 10.0), (8, 1e4), (24, 1e6), (128, 1e6)])
def test_rotation_is_that_of_transformers_bit_for_bit(head_dim: int, theta: float, dtype: torch.dtype) -> None:
    config = MixtralConfig(head_dim=head_dim, rope_parameters={"rope_type": "default", "rope_theta": theta})
    embedding: Any = MixtralRotaryEmbedding(config)
    q, k = torch.randn(8, 6, head_dim).to(dtype), torch.randn(8, 3, head_dim).to(dtype)
    cos, sin = embedding(q, POSITIONS[None])
    expected = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos, sin)
    ours = rotation(POSITIONS, inverse_frequencies(head_dim, theta), dtype)
    for x, y in zip((q, k), expected, strict=True):
        assert torch.equal(rotate(x, *ours), y[0].transpose(0, 1))


def test_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(1)
    q, k = torch.randn(1, 1, 16, dtype=torch.float64), torch.randn(1, 1, 16, dtype=torch.float64)
    frequencies = inverse_frequencies(16, 1e4).double()

    def score(query_at: int, key_at: int) -> float:
        at = [rotation(torch.tensor([p]).double(), frequencies, torch.float64) for p in (query_at, key_at)]
        return float((rotate(q, *at[0]) * rotate(k, *at[1])).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 3), abs=1e-4)


def test_position_zero_is_not_rotated() -> None:
    x = torch.randn(1, 2, 8)
    assert torch.equal(rotate(x, *rotation(torch.tensor([0]), inverse_frequencies(8, 1e4), torch.float32)), x)


@pytest.mark.parametrize("head_dim", [2, 6, 20, 64])
def test_row_has_the_same_bits_at_every_row_count(head_dim: int) -> None:
    positions, frequencies = torch.arange(40, 80), inverse_frequencies(head_dim, 1e4)
    cos, sin = rotation(positions, frequencies, torch.float32)
    for rows in range(1, 40):
        part = rotation(positions[:rows], frequencies, torch.float32)
        assert torch.equal(part[0], cos[:rows]) and torch.equal(part[1], sin[:rows])
