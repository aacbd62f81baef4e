"""A residual perceptron as a denoiser: pixels as one vector, for small pictures."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.conditioning import Condition
from sanbu.layers.perceptron import Perceptron
from sanbu.models.denoisers.denoiser import DenoiserConfig
from sanbu.space import Space


class PerceptronDenoiser(DenoiserConfig):
    """Pixels as one vector through residual blocks, for small pictures."""

    kind: Literal["perceptron-denoiser"] = "perceptron-denoiser"
    dropout: float = Field(0.0, ge=0, lt=1)

    def network(self, space: Space) -> nn.Module:
        return PerceptronNetwork(self, space)


class PerceptronNetwork(nn.Module):
    """Pixels as one vector."""

    def __init__(self, config: PerceptronDenoiser, space: Space) -> None:
        super().__init__()
        size = math.prod(space.shape)
        self.condition = Condition(64, config.width, space.classes)
        self.body = Perceptron(size, config.width, config.layers, size, config.width, config.dropout, zero=True)

    def forward(self, x_BCHW: Tensor, clock_B: Tensor, label_B: Tensor) -> Tensor:
        condition_BD = torch.nn.functional.silu(self.condition(clock_B, label_B))
        return self.body(x_BCHW.flatten(1), condition_BD).view_as(x_BCHW)
