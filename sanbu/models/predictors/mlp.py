"""A multilayer perceptron: h <- gelu(W h + b), then a linear layer (Rumelhart, Hinton and Williams, 1986)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import nn

from sanbu.models.predictors.predictor import PredictorConfig
from sanbu.space import Space


class MLP(PredictorConfig):
    """A multilayer perceptron over the flattened input."""

    kind: Literal["mlp"] = "mlp"
    layers: int = Field(2, ge=0, description="hidden layers; 0 is linear")
    width: int = Field(64, ge=1, description="width; sets automatic learning rate and batch size")
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        return mlp(self, math.prod(space.shape), self.count_outputs(space))


def mlp(config: MLP, inputs: int, outputs: int) -> nn.Sequential:
    """x -> hidden layers -> outputs_BO."""
    parts: list[nn.Module] = [nn.Flatten()]
    for _ in range(config.layers):
        parts += [nn.Linear(inputs, config.width), nn.GELU(), nn.Dropout(config.dropout)]
        inputs = config.width
    model = nn.Sequential(*parts)
    model.add_module("head", nn.Linear(inputs, outputs))
    return model
