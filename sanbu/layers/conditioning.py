"""Conditioning of a network: sinusoidal time embeddings and label embeddings; the last label means none."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def waves(clock_B: Tensor, width: int, shift: float = 0.0) -> Tensor:
    """cos and sin of the clock at `width` / 2 falling frequencies (Vaswani and others, 2017), float32.

    The exponents are i / (width / 2 - shift). An odd width ends with a zero.
    """
    half = width // 2
    powers = torch.arange(half, dtype=torch.float32, device=clock_B.device) / (half - shift)
    angles = clock_B.float()[:, None] * torch.exp(-math.log(10000.0) * powers)
    return F.pad(torch.cat((angles.cos(), angles.sin()), 1), (0, width % 2))


class TimeEmbedding(nn.Module):
    """waves -> linear -> SiLU -> linear."""

    def __init__(self, inputs: int, width: int, shift: float = 0.0) -> None:
        super().__init__()
        self.inputs, self.shift = inputs, shift
        self.up = nn.Linear(inputs, width)
        self.down = nn.Linear(width, width)

    def forward(self, clock_B: Tensor) -> Tensor:
        return self.down(F.silu(self.up(waves(clock_B, self.inputs, self.shift))))


class Condition(nn.Module):
    """The sum of the embeddings of time and label."""

    def __init__(self, inputs: int, width: int, classes: int, shift: float = 0.0) -> None:
        super().__init__()
        self.time = TimeEmbedding(inputs, width, shift)
        self.label = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.label.weight, std=0.02)

    def forward(self, clock_B: Tensor, label_B: Tensor) -> Tensor:
        return self.time(clock_B) + self.label(label_B)
