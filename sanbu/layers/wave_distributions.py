"""Distributions of one sample of a wave: a softmax over mu-law levels, and a mixture of logistics over 16 bits.

mu-law      level = (sign(x) log(1 + 255 |x|) / log 256 + 1) / 2 * 255, rounded          (van den Oord and others, 2016)
logistics   p(level) = sum_m w_m (F((x + d - mean_m) / s_m) - F((x - d - mean_m) / s_m))  (Salimans and others, 2017)

Shapes: ... any leading axes, P outputs of the network (`size`). A wave is in [-1, 1].
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from sanbu.layers.pixel_distributions import logistic_mass
from sanbu.noise import uniform_at

LEAST_LOG_SCALE = -9.0  # of a logistic; 1e-4 of the full range


class Distribution(Protocol):
    """The law of one sample. size: outputs of the network. levels: how many values a sample can have."""

    size: int
    levels: int

    def nearest(self, wave: Tensor) -> Tensor:
        """The number of the level of each sample, int64."""

    def value(self, level: Tensor) -> Tensor:
        """The sample in [-1, 1] of a level."""

    def log_probability(self, outputs_P: Tensor, level: Tensor) -> Tensor:
        """log p(level), in nats."""

    def draw(self, outputs_BP: Tensor, seeds_B: Tensor, position: int) -> Tensor:
        """A level by row, from the row's seed and the number of the sample."""


class MuLaw:
    """A softmax over 256 levels, which lie closer together where the wave is quiet."""

    size = levels = 256

    def nearest(self, wave: Tensor) -> Tensor:
        loudness = torch.log1p(255 * wave.abs().clamp(max=1))
        squeezed = wave.sign() * loudness / math.log(256)
        return ((squeezed + 1) * 127.5).round().long().clamp(0, 255)

    def value(self, level: Tensor) -> Tensor:
        squeezed = level.double() / 127.5 - 1
        return (squeezed.sign() * torch.expm1(squeezed.abs() * math.log(256)) / 255).float()

    def log_probability(self, outputs_P: Tensor, level: Tensor) -> Tensor:
        return outputs_P.log_softmax(-1).gather(-1, level[..., None])[..., 0]

    def draw(self, outputs_BP: Tensor, seeds_B: Tensor, position: int) -> Tensor:
        chance = uniform_at(seeds_B, torch.tensor(2 * position, device=seeds_B.device))
        cumulative = outputs_BP.double().softmax(1).cumsum(1)
        return (cumulative < chance[:, None]).sum(1).clamp(max=255)


class Logistics:
    """A mixture of discretised logistic distributions over the levels of 16 bits. outputs: weights, means, scales."""

    levels = 2**16

    def __init__(self, components: int) -> None:
        self.size = 3 * components

    def nearest(self, wave: Tensor) -> Tensor:
        top = self.levels - 1
        return ((wave.double() + 1) * (top / 2)).round().long().clamp(0, top)

    def value(self, level: Tensor) -> Tensor:
        return (level.double() * (2 / (self.levels - 1)) - 1).float()

    def log_probability(self, outputs_P: Tensor, level: Tensor) -> Tensor:
        logit, mean, log_scale = outputs_P.chunk(3, -1)
        mass = logistic_mass(level[..., None], mean, log_scale.clamp(min=LEAST_LOG_SCALE), self.levels)
        return (F.log_softmax(logit, -1) + mass).logsumexp(-1)

    def draw(self, outputs_BP: Tensor, seeds_B: Tensor, position: int) -> Tensor:
        counter = 2 * position + torch.arange(2, device=seeds_B.device)
        choice, chance = uniform_at(seeds_B[:, None], counter).unbind(1)
        logit, mean, log_scale = outputs_BP.double().chunk(3, 1)
        cumulative = logit.softmax(1).cumsum(1)
        chosen = (cumulative < choice[:, None]).sum(1, keepdim=True).clamp(max=logit.shape[1] - 1)
        scale = log_scale.clamp(min=LEAST_LOG_SCALE).exp().gather(1, chosen)[:, 0]
        shift = chance.log() - torch.log1p(-chance)
        wave = mean.gather(1, chosen)[:, 0] + scale * shift
        return self.nearest(wave.clamp(-1, 1))
