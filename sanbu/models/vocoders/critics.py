"""Critics of waves: by period and by scale (Kong, Kim and Bae, "HiFi-GAN", 2020; Kumar and others, "MelGAN", 2019).

A period critic folds the wave into rows of p samples and convolves down the columns, so it sees samples p apart. A
scale critic convolves the wave itself, halved in rate by averages. Every critic gives scores along time and the
features of its layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.models.vocoders.hifigan import SLOPE, normalised

PERIODS, SCALES = (2, 3, 5, 7, 11), 3
SCALE_LAYERS = (  # outputs, kernel, stride, groups
    (128, 15, 1, 1),
    (128, 41, 2, 4),
    (256, 41, 2, 16),
    (512, 41, 4, 16),
    (1024, 41, 4, 16),
    (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)
PERIOD_LAYERS = ((32, 3), (128, 3), (512, 3), (1024, 3), (1024, 1))  # outputs, stride
Judged = list[tuple[Tensor, list[Tensor]]]  # by critic: scores [B, n], and the features of each layer


class PeriodCritic(nn.Module):
    """Sees samples that lie a period apart. share: of the published channels."""

    def __init__(self, period: int, share: float) -> None:
        super().__init__()
        self.period, inputs = period, 1
        layers = []
        for published, stride in PERIOD_LAYERS:
            outputs = max(4, round(published * share))
            layers.append(normalised(nn.Conv2d(inputs, outputs, (5, 1), (stride, 1), (2, 0)), small=False))
            inputs = outputs
        self.layers = nn.ModuleList(layers)
        self.last = normalised(nn.Conv2d(inputs, 1, (3, 1), 1, (1, 0)), small=False)

    def forward(self, wave_BN: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores and features."""
        short = -wave_BN.shape[1] % self.period
        whole = F.pad(wave_BN[:, None], (0, short), mode="reflect")
        return judged(whole.unflatten(2, (-1, self.period)), self.layers, self.last)


class ScaleCritic(nn.Module):
    """Sees neighbouring samples of a wave at its rate."""

    def __init__(self, share: float) -> None:
        super().__init__()
        layers, inputs = [], 1
        for published, kernel, stride, groups in SCALE_LAYERS:
            outputs = max(16, 16 * round(published * share / 16))
            plain = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=min(groups, inputs))
            layers.append(normalised(plain, small=False))
            inputs = outputs
        self.layers = nn.ModuleList(layers)
        self.last = normalised(nn.Conv1d(inputs, 1, 3, 1, 1), small=False)

    def forward(self, wave_BN: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores and features."""
        return judged(wave_BN[:, None], self.layers, self.last)


def judged(x: Tensor, layers: nn.ModuleList, last: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """Scores of the last layer, and the features of all."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    scores = last(x)
    return scores.flatten(1), [*features, scores]


class Critics(nn.Module):
    """All critics of a game. Weight normalisation throughout: the published first scale critic has spectral norm,
    whose power iteration would make a batch differ from its parts.
    """

    def __init__(self, periods: tuple[int, ...], scales: int, share: float) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodCritic(period, share) for period in periods)
        self.scales = nn.ModuleList(ScaleCritic(share) for _ in range(scales))

    def forward(self, wave_BN: Tensor) -> Judged:
        """What every critic says of the waves."""
        found = [critic(wave_BN) for critic in self.periods]
        for number, critic in enumerate(self.scales):
            if number:
                wave_BN = F.avg_pool1d(wave_BN[:, None], 4, 2, 2)[:, 0]
            found.append(critic(wave_BN))
        return found


def scores_of(found: Judged) -> list[Tensor]:
    """The scores of each critic."""
    return [scores for scores, _ in found]


def feature_distance(real: Judged, made: Judged) -> Tensor:
    """The sum over layers of the mean |difference| of features, by row [B]; no gradient to the real ones."""
    total = torch.zeros(len(made[0][0]), device=made[0][0].device)
    for (_, true), (_, ours) in zip(real, made, strict=True):
        for a, b in zip(true, ours, strict=True):
            total = total + (a.detach() - b).abs().flatten(1).mean(1)
    return total
