"""Transformer blocks whose inner layer is a convolution, for symbols and frames of speech ("FFT blocks").

h = norm(x + attention(x));   y = norm(h + conv(relu(conv(h))))    (Ren and others, "FastSpeech", 2019)

Rows are filled up to one length; what lies beyond a row never reaches it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FrameBlock(nn.Module):
    """One block. kernels: of the two convolutions, odd."""

    def __init__(self, width: int, heads: int, inner: int, kernels: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Conv1d(width, inner, kernels[0], padding=kernels[0] // 2)
        self.narrow = nn.Conv1d(inner, width, kernels[1], padding=kernels[1] // 2)
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        h_BTD = self.attention_norm(x_BTD + self.dropout(self.attend(x_BTD, inside_BT)))
        h_BTD = h_BTD * inside_BT[..., None]
        inner_BCT = F.relu(self.wide(h_BTD.transpose(1, 2))) * inside_BT[:, None]
        y_BTD = self.norm(h_BTD + self.dropout(self.narrow(inner_BCT).transpose(1, 2)))
        return y_BTD * inside_BT[..., None]

    def attend(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        """Attention over the real places of a row."""
        parts = self.project(x_BTD).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        y_BNTH = F.scaled_dot_product_attention(q, k, v, attn_mask=inside_BT[:, None, None])
        return self.out(y_BNTH.transpose(1, 2).flatten(2))


class FrameTransformer(nn.Module):
    """Sinusoidal positions, then blocks. [B, T, D] -> [B, T, D], zero beyond a row."""

    def __init__(
        self, layers: int, width: int, heads: int, inner: int, kernels: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FrameBlock(width, heads, inner, kernels, dropout) for _ in range(layers))

    def forward(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        x_BTD = (x_BTD + sinusoids(x_BTD)) * inside_BT[..., None]
        for block in self.blocks:
            x_BTD = block(x_BTD, inside_BT)
        return x_BTD


def sinusoids(x_BTD: Tensor) -> Tensor:
    """Sines and cosines [T, D] of positions (Vaswani and others, 2017)."""
    T, D = x_BTD.shape[1:]
    half = torch.arange(D // 2, device=x_BTD.device)
    frequencies = torch.exp(half * (-2 * math.log(10_000) / D))
    angles = torch.arange(T, device=x_BTD.device)[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1).to(x_BTD.dtype)
