"""DiT: a transformer over patches, conditioned by scales and shifts that start at zero (Peebles and Xie, 2023).

The architecture is that of DiTTransformer2DModel in diffusers, so weights convert both ways.
Shapes: B, T patches, D width.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.conditioning import Condition
from sanbu.layers.mlp import MLP, gelu
from sanbu.models.denoisers.denoiser import DenoiserConfig
from sanbu.space import Space


class DiTBlock(nn.Module):
    """Attention and an MLP with a scale and shift before and a gate after each; gates start at zero (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, epsilon: float) -> None:
        super().__init__()
        self.heads, self.epsilon = heads, epsilon
        self.told = nn.Linear(width, 6 * width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp = MLP(width, 4 * width, bias=True, activation=gelu)

    def forward(self, x_BTD: Tensor, condition_BD: Tensor) -> Tensor:
        """condition_BD: after its activation function."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.told(condition_BD)[:, None].chunk(6, 2)
        x_BTD = x_BTD + gate1 * self._attend(modulated(x_BTD, shift1, scale1))
        return x_BTD + gate2 * self.mlp(modulated(x_BTD, shift2, scale2, self.epsilon))

    def _attend(self, x_BTD: Tensor) -> Tensor:
        projected = [project(x_BTD) for project in (self.query, self.key, self.value)]
        heads = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in projected)
        return self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class DiT(DenoiserConfig):
    """A transformer over patches with adaLN-Zero (Peebles and Xie, 2023)."""

    kind: Literal["dit"] = "dit"
    heads: int = Field(4, ge=1)
    patch: int = Field(2, ge=1, description="side of a patch")
    epsilon: float = Field(1e-6, gt=0, description="epsilon of the norm before each MLP; the other norms have 1e-6")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"model.width: given {self.width}, but it must be a multiple of 4 and of model.heads, {self.heads}"
            )
        if any(side % self.patch for side in space.shape[1:]):
            raise ValueError(
                f"model.patch: given {self.patch}, but it must divide height and width, {list(space.shape[1:])}"
            )

    def network(self, space: Space) -> nn.Module:
        return DiTNetwork(self, space)


class DiTNetwork(nn.Module):
    """x_BCHW, clock_B, label_B -> a picture of the same shape."""

    places: Tensor
    blocks: Any

    def __init__(self, config: DiT, space: Space) -> None:
        super().__init__()
        channels, height, across = space.shape
        self.patch, width = config.patch, config.width
        self.first = nn.Conv2d(channels, width, self.patch, self.patch)
        self.register_buffer("places", grid_waves(height // self.patch, across // self.patch, width), persistent=False)
        self.condition = Condition(256, width, space.classes, shift=1.0)
        self.blocks = nn.ModuleList(DiTBlock(width, config.heads, config.epsilon) for _ in range(config.layers))
        self.told = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, self.patch**2 * channels)
        self._initialise()

    def forward(self, x_BCHW: Tensor, clock_B: Tensor, label_B: Tensor) -> Tensor:
        condition_BD = F.silu(self.condition(clock_B, label_B))
        patches = self.first(x_BCHW)
        x_BTD = patches.flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x_BTD = block(x_BTD, condition_BD)
        shift, scale = self.told(condition_BD)[:, None].chunk(2, 2)
        x_BTO = self.last(modulated(x_BTD, shift, scale))
        rows, p = patches.shape[2], self.patch
        patches_BRSppC = x_BTO.unflatten(2, (p, p, -1)).unflatten(1, (rows, -1))
        return patches_BRSppC.permute(0, 5, 1, 3, 2, 4).reshape(x_BCHW.shape)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.first.weight.view(self.first.weight.shape[0], -1))
        nn.init.normal_(self.condition.label.weight, std=0.02)
        for linear in (self.condition.time.up, self.condition.time.down):
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (*(block.told for block in self.blocks), self.told, self.last):
            nn.init.zeros_(linear.weight)


def modulated(x_BTD: Tensor, shift: Tensor, scale: Tensor, epsilon: float = 1e-6) -> Tensor:
    """norm(x) (1 + scale) + shift."""
    return F.layer_norm(x_BTD, x_BTD.shape[-1:], eps=epsilon) * (1 + scale) + shift


def grid_waves(rows: int, columns: int, width: int) -> Tensor:
    """Fixed sinusoidal positions [1, T, D]: half of the features encode the column, half the row."""
    quarter = width // 4
    powers = torch.arange(quarter, dtype=torch.float64) / quarter

    def wave(places: Tensor) -> Tensor:
        angles = places.double()[:, None] * torch.exp(-math.log(10000.0) * powers)
        return torch.cat((angles.sin(), angles.cos()), 1)

    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat((wave(column.flatten()), wave(row.flatten())), 1).float()[None]
