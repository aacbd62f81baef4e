"""Residual perceptrons as denoisers: pixels as one vector, for small pictures.

A perceptron of width D predicts at most D independent numbers. Noise has as many as the picture has, so where a picture
has more than D, noise can be removed only if it can pass beside the perceptron: `skip-perceptron` adds a multiple of
its input, F(x) = perceptron(x) + g(t, label) x, with a learnt number g that begins at 0.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.conditioning import Condition
from sanbu.layers.perceptron import Perceptron
from sanbu.models.denoisers.denoiser import DenoiserConfig, PathConfig
from sanbu.space import Space


class VectorConfig(DenoiserConfig):
    """A network for pictures as vectors, and for rows of tables that are coded as real numbers."""

    def check(self, space: Space) -> None:
        if space.code is None:
            super().check(space)
        else:
            PathConfig.check(self, space)


class PerceptronDenoiser(VectorConfig):
    """Pixels as one vector through residual blocks, for pictures of no more numbers than the width."""

    kind: Literal["perceptron-denoiser"] = "perceptron-denoiser"
    dropout: float = Field(0.0, ge=0, lt=1)

    def network(self, space: Space) -> nn.Module:
        return PerceptronNetwork(self, space)

    def caution(self, space: Space) -> str:
        numbers = math.prod(space.shape)
        if numbers <= self.width:
            return ""
        return (
            f"model: a perceptron of width {self.width} cannot remove noise from pictures of {numbers:,} numbers;"
            " model=skip-perceptron or model=unet can"
        )


class SkipPerceptron(VectorConfig):
    """The same, for pictures of any size: with more numbers than the width, a multiple of the input is added."""

    kind: Literal["skip-perceptron"] = "skip-perceptron"
    dropout: float = Field(0.0, ge=0, lt=1)

    def network(self, space: Space) -> nn.Module:
        fits = math.prod(space.shape) <= self.width
        return PerceptronNetwork(self, space) if fits else SkipNetwork(self, space)


class PerceptronNetwork(nn.Module):
    """Pixels as one vector."""

    def __init__(self, config: PerceptronDenoiser | SkipPerceptron, space: Space) -> None:
        super().__init__()
        size = math.prod(space.shape)
        self.condition = Condition(64, config.width, space.classes)
        self.body = Perceptron(size, config.width, config.layers, size, config.width, config.dropout, zero=True)

    def forward(self, x_BCHW: Tensor, clock_B: Tensor, label_B: Tensor) -> Tensor:
        condition_BD = torch.nn.functional.silu(self.condition(clock_B, label_B))
        return self.body(x_BCHW.flatten(1), condition_BD).view_as(x_BCHW)


class SkipNetwork(nn.Module):
    """Pixels as one vector, and beside it a multiple of them that depends on time and label."""

    def __init__(self, config: SkipPerceptron, space: Space) -> None:
        super().__init__()
        size = math.prod(space.shape)
        self.condition = Condition(64, config.width, space.classes)
        self.body = Perceptron(size, config.width, config.layers, size, config.width, config.dropout, zero=True)
        self.skip = nn.Linear(config.width, 1)
        nn.init.zeros_(self.skip.weight)
        nn.init.zeros_(self.skip.bias)

    def forward(self, x_BCHW: Tensor, clock_B: Tensor, label_B: Tensor) -> Tensor:
        condition_BD = torch.nn.functional.silu(self.condition(clock_B, label_B))
        x_BI = x_BCHW.flatten(1)
        return (self.body(x_BI, condition_BD) + self.skip(condition_BD) * x_BI).view_as(x_BCHW)
