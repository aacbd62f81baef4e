"""Rotary positions (Su and others, 2021), in the half-split layout of LLaMA checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Rotate each pair (x_i, x_{i + H/2}) by the angle position * base^(-2i/H). [B, T, N, H] in and out."""

    def __init__(self, head_width: int, base: float = 10000.0) -> None:
        super().__init__()
        self.head_width, self.base = head_width, base

    def forward(self, x_BTNH: Tensor, positions_BT: Tensor) -> Tensor:
        half = self.head_width // 2
        exponents = torch.arange(half, device=x_BTNH.device, dtype=torch.float32) / half
        angles = positions_BT[:, :, None, None].float() * self.base**-exponents
        cosine, sine = angles.cos(), angles.sin()
        a, b = x_BTNH.float().split(half, dim=-1)
        turned = torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1)
        return turned.to(x_BTNH.dtype)
