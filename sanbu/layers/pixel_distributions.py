"""Distributions of integer levels: the output layers of pixel models.

An output layer maps the features of a pixel to the distribution of its channels in order: p(x_1) p(x_2 | x_1) ... .
Shapes: ... any leading axes, D features, C channels, K levels, M components.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def logistic_mass(level: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Log-probability of a level under a discretised logistic distribution; the outer bins reach to infinity.

    Levels 0 .. K - 1 are at -1 ... 1; with two levels it is Bernoulli (Salimans and others, 2017, eq. 2).
    """
    half, centre = 1 / (levels - 1), level * (2 / (levels - 1)) - 1
    below = (centre - half - mean) * (-log_scale).exp()
    width = 2 * half * (-log_scale).exp()
    from_below = F.logsigmoid(-below).where(level > 0, 0.0)
    to_above = F.logsigmoid(below + width).where(level < levels - 1, 0.0)
    inner = (level > 0) & (level < levels - 1)
    between = torch.log(-torch.expm1(-width)).where(inner, 0.0)
    return from_below + to_above + between


class Categorical(nn.Module):
    """A softmax over levels per channel; earlier channels condition later ones through added embeddings."""

    def __init__(self, width: int, channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.levels = channels, levels
        self.earlier = nn.Embedding((channels - 1) * levels, width) if channels > 1 else None
        self.heads = nn.Linear(width, channels * levels)

    def forward(self, features_D: Tensor, levels_C: Tensor) -> Tensor:
        """log p(x_c | x_<c), [..., C]."""
        rows = [self.logits(features_D, levels_C, channel).log_softmax(-1) for channel in range(self.channels)]
        return torch.stack(rows, -2).gather(-1, levels_C[..., None])[..., 0]

    def logits(self, features_D: Tensor, levels_C: Tensor, channel: int) -> Tensor:
        """Logits over the levels of one channel, [..., K]; channels from this one on are not read."""
        for before in range(channel):
            assert self.earlier is not None
            features_D = features_D + self.earlier(levels_C[..., before] + before * self.levels)
        own = slice(channel * self.levels, (channel + 1) * self.levels)
        return F.linear(F.silu(features_D), self.heads.weight[own], self.heads.bias[own]).float()


class Logistics(nn.Module):
    """PixelCNN++'s mixture of discretised logistics, components shared by channels (Salimans and others, 2017)."""

    def __init__(self, width: int, channels: int, levels: int, components: int) -> None:
        super().__init__()
        self.channels, self.levels, self.components = channels, levels, components
        pairs = channels * (channels - 1) // 2
        self.sizes = (1, channels, channels, pairs)
        self.head = nn.Linear(width, components * sum(self.sizes))
        spread = torch.linspace(-0.9, 0.9, components)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            bias = self.head.bias.view(components, sum(self.sizes)).zero_()
            bias[:, 1 : 1 + channels] = spread[:, None]
            bias[:, 1 + channels : 1 + 2 * channels] = -1.5

    def forward(self, features_D: Tensor, levels_C: Tensor) -> Tensor:
        """log p(x_c | x_<c), [..., C]: the mixture over c channels against the mixture over c - 1."""
        weight_M, mean_MC, log_scale_MC, mix_MP = self._parts(features_D)
        mean_MC = torch.stack([self._mean(mean_MC, mix_MP, levels_C, c) for c in range(self.channels)], -1)
        mass_MC = logistic_mass(levels_C[..., None, :], mean_MC, log_scale_MC, self.levels)
        upto = torch.logsumexp(weight_M[..., None] + mass_MC.cumsum(-1), -2)
        return torch.cat((upto[..., :1], upto[..., 1:] - upto[..., :-1]), -1)

    def logits(self, features_D: Tensor, levels_C: Tensor, channel: int) -> Tensor:
        """Log-probabilities over the levels of one channel, [..., K]; channels from this one on are not read."""
        weight_M, mean_MC, log_scale_MC, mix_MP = self._parts(features_D)
        for before in range(channel):
            mean = self._mean(mean_MC, mix_MP, levels_C, before)
            weight_M = weight_M + logistic_mass(
                levels_C[..., None, before], mean, log_scale_MC[..., before], self.levels
            )
        every_K1 = torch.arange(self.levels, device=levels_C.device)[:, None]
        mean_1M = self._mean(mean_MC, mix_MP, levels_C, channel)[..., None, :]
        mass_KM = logistic_mass(every_K1, mean_1M, log_scale_MC[..., None, :, channel], self.levels)
        return torch.logsumexp(weight_M.log_softmax(-1)[..., None, :] + mass_KM, -1)

    def _parts(self, features_D: Tensor) -> tuple[Tensor, ...]:
        values = self.head(F.silu(features_D)).float().unflatten(-1, (self.components, -1))
        weight, mean, log_scale, mixing = values.split(self.sizes, -1)
        return weight[..., 0].log_softmax(-1), mean, log_scale.clamp(min=-7), mixing.tanh()

    def _mean(self, mean_MC: Tensor, mix_MP: Tensor, levels_C: Tensor, channel: int) -> Tensor:
        """The means of a channel, moved by the channels before it."""
        first = channel * (channel - 1) // 2
        unit_1C = (levels_C * (2 / (self.levels - 1)) - 1)[..., None, :channel]
        return mean_MC[..., channel] + (mix_MP[..., first : first + channel] * unit_1C).sum(-1)
