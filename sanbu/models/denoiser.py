"""A denoiser: a network, the path it undoes, and what it predicts. Three nouns: network, denoiser, sampler.

The network sees a picture scaled to unit variance, a clock and a label, and gives a picture; the denoiser knows what that
means. Networks for it: a perceptron (here), a U-Net (unet.py), a transformer (dit.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sanbu.data.kinds import Space
from sanbu.layers.conditioning import Condition
from sanbu.layers.perceptron import Perceptron
from sanbu.models import kinds
from sanbu.paths import TARGETS, Pair, Path, solve, spread


class Denoiser(nn.Module):
    """path: how noise mixes in. target: what the network predicts. deviation: of the data, where the target asks for it."""

    def __init__(self, network: nn.Module, config: kinds.DenoiserConfig) -> None:
        super().__init__()
        self.network = network
        self.path: Path = config.path
        self.target, self.deviation = config.target, config.deviation

    def forward(self, x_BCHW: Tensor, t_B: Tensor, label_B: Tensor) -> Tensor:
        """The network's prediction of its target at x_t."""
        if self.target == "preconditioned":
            variance_B = (self.path.alpha(t_B) * self.deviation) ** 2 + self.path.sigma(t_B) ** 2
            x_BCHW = x_BCHW * spread(variance_B.rsqrt(), x_BCHW)
        return self.network(x_BCHW, self.path.clock(t_B), label_B).to(t_B.dtype)

    def factors(self, t_B: Tensor) -> Pair:
        """What is predicted: c_x x + c_e e."""
        return TARGETS[self.target](self.path, t_B, self.deviation)

    def estimate(self, x_BCHW: Tensor, t_B: Tensor, label_B: Tensor) -> Pair:
        """The clean picture and the noise that the prediction amounts to."""
        return solve(self.path, self.factors(t_B), x_BCHW, self(x_BCHW, t_B, label_B), t_B)


class PerceptronNetwork(nn.Module):
    """Pixels as one vector."""

    def __init__(self, config: kinds.PerceptronDenoiser, space: Space) -> None:
        super().__init__()
        size = math.prod(space.shape)
        self.condition = Condition(64, config.width, space.classes)
        self.body = Perceptron(size, config.width, config.layers, size, config.width, config.dropout, zero=True)

    def forward(self, x_BCHW: Tensor, clock_B: Tensor, label_B: Tensor) -> Tensor:
        condition_BD = torch.nn.functional.silu(self.condition(clock_B, label_B))
        return self.body(x_BCHW.flatten(1), condition_BD).view_as(x_BCHW)
