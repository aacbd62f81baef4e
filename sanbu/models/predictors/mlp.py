"""A multilayer perceptron: h <- gelu(W h + b), then a linear layer (Rumelhart, Hinton and Williams, 1986)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sanbu.models.predictors.predictor import PredictorConfig
from sanbu.space import Space


class MLP(PredictorConfig):
    """A multilayer perceptron over the flattened input."""

    kind: Literal["mlp"] = "mlp"
    layers: int = Field(2, ge=0, description="hidden layers; 0 is linear")
    width: int = Field(64, ge=1, description="width; sets automatic learning rate and batch size")
    dropout: float = Field(0.0, ge=0, lt=1)
    center: float = Field(0.0, description="added to the outputs, for targets far from 0")
    spread: float = Field(1.0, gt=0, description="factor of the outputs, for targets with another unit")

    def build(self, space: Space) -> nn.Module:
        return mlp(self, math.prod(space.shape), self.count_outputs(space))


class Scaled(nn.Module):
    """A fixed linear map of the outputs."""

    def __init__(self, center: float, spread: float) -> None:
        super().__init__()
        self.center, self.spread = center, spread

    def forward(self, outputs_BO: Tensor) -> Tensor:
        return self.center + self.spread * outputs_BO


def mlp(config: MLP, inputs: int, outputs: int) -> nn.Sequential:
    """x -> hidden layers -> outputs_BO."""
    parts: list[nn.Module] = [nn.Flatten()]
    for _ in range(config.layers):
        parts += [nn.Linear(inputs, config.width), nn.GELU(), nn.Dropout(config.dropout)]
        inputs = config.width
    model = nn.Sequential(*parts)
    model.add_module("head", nn.Linear(inputs, outputs))
    if (config.center, config.spread) != (0.0, 1.0):
        model.add_module("scaled", Scaled(config.center, config.spread))
    return model
