"""Norms that torch does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OffsetRMSNorm(nn.Module):
    """x / rms(x) * (1 + w) over the last axis, computed in float32; w starts at zero (Gemma, 2024)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.zeros(width)), epsilon

    def forward(self, x: Tensor) -> Tensor:
        whole = x.float()
        scaled = whole * torch.rsqrt(whole.square().mean(-1, keepdim=True) + self.epsilon)
        return (scaled * (1 + self.weight.float())).to(x.dtype)
