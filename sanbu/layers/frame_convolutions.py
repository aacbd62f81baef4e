"""ConvNeXt blocks for symbols and frames of speech: a depthwise convolution and two linear maps, added to their input.

y = x + scale * W_2 gelu(W_1 norm(depthwise(x)))    (Liu and others, "A ConvNet for the 2020s", 2022)

Rows are filled up to one length; what lies beyond a row never reaches it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvolutionBlock(nn.Module):
    """One block. kernel: odd. scale: of what is added, at the start."""

    def __init__(self, width: int, kernel: int, inner: int, dropout: float, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.wide, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        h_BTD = self.norm(self.depthwise(x_BTD.transpose(1, 2)).transpose(1, 2))
        h_BTD = self.scale * self.dropout(self.narrow(F.gelu(self.wide(h_BTD))))
        return (x_BTD + h_BTD) * inside_BT[..., None]


class FrameConvolutions(nn.Module):
    """Blocks, then a norm. [B, T, D] -> [B, T, D], zero beyond a row."""

    def __init__(self, layers: int, width: int, kernel: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvolutionBlock(width, kernel, inner, dropout, 1 / layers) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        x_BTD = x_BTD * inside_BT[..., None]
        for block in self.blocks:
            x_BTD = block(x_BTD, inside_BT)
        return self.norm(x_BTD) * inside_BT[..., None]
