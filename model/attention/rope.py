"""Rotary position embeddings at absolute positions (RoFormer), in HF's half-split layout."""

import torch


def inverse_frequencies(head_dim: int, theta: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """fp32 [head_dim / 2]: theta^(-2i / head_dim)."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    return 1.0 / (theta**exponent)


def rotation(
    positions_T: torch.Tensor, inv_freq: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, each [T, 1, head_dim], computed in fp32 and rounded to `dtype` as HF does. The sin of the first half
    is negative, because `rotate` subtracts there.
    """
    angles = positions_T[:, None, None].float() * inv_freq
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x_THd: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys [T, heads, head_dim] by their positions' angles."""
    first, second = x_THd.chunk(2, dim=-1)
    return (x_THd * cos).add_(torch.cat((second, first), dim=-1).mul_(sin))
