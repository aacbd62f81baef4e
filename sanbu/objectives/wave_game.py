"""The game of vocoders: critics of waves, features that must agree, and distances between spectra.

critics     sum_k mean (D_k(x) - 1)^2 + mean D_k(y)^2
model       sum_k mean (D_k(y) - 1)^2 + 2 sum_layers mean |f(x) - f(y)| + 45 mean |log mel(x) - log mel(y)| + ...

x is the true wave and y the model's (Mao and others, "Least squares GAN", 2017; Kong, Kim and Bae, "HiFi-GAN", 2020).
The distances are those of the objective `spectral`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.models.vocoders.critics import PERIODS, SCALES, Critics, feature_distance, scores_of
from sanbu.objectives.objective import Loss, Objective, Round, Turn, count_rows
from sanbu.objectives.spectral import SpectralConfig
from sanbu.space import Batch, Models


class WaveGame(SpectralConfig):
    """Critics by period and scale, matched features, and distances between spectra."""

    kind: Literal["wave-game"] = "wave-game"
    stft_weight: float = Field(0.0, ge=0, description="weight of the distances between magnitudes")
    feature_weight: float = Field(2.0, ge=0, description="weight of the distance between the critics' features")
    periods: tuple[int, ...] = Field(PERIODS, description="periods of critics, in samples")
    scales: int = Field(SCALES, ge=0, description="number of critics by scale")
    share: float = Field(1.0, gt=0, le=1, description="share of the published channels of critics")

    def build(self) -> Objective:
        return wave_game(self)


def wave_game(config: WaveGame) -> Objective:
    """A round: a turn of the critics, then one of the model."""

    def critic_loss(models: Models, batch: Batch) -> Loss:
        with torch.no_grad():
            made = models["model"](batch["mel"])
        real_K, made_K = scores_of(models["critic"](batch["wave"])), scores_of(models["critic"](made))
        rows = [squares(real, 1.0) + squares(fake, 0.0) for real, fake in zip(real_K, made_K, strict=True)]
        return Loss({"rows": torch.stack(rows).sum()}, {"right": right(real_K, made_K)})

    def model_loss(models: Models, batch: Batch) -> Loss:
        model = models["model"]
        made, true = model(batch["mel"]), batch["wave"]
        with torch.no_grad():
            real = models["critic"](true)
        found = models["critic"](made)
        game = torch.stack([squares(scores, 1.0) for scores in scores_of(found)]).sum()
        features = feature_distance(real, found).sum()
        distance, mel = config.distance(made, true, model.mel)
        rows = mel.new_tensor(len(true))
        total = game + config.feature_weight * features + distance
        return Loss({"rows": total}, {"mel_l1": (mel.detach(), rows), "features": (features.detach(), rows)})

    def turns(round: Round) -> Iterator[Turn]:
        yield Turn("critic", round.batch, critic_loss, count_rows)
        yield Turn("model", round.batch, model_loss, count_rows)

    def attach(model: Any) -> dict[str, nn.Module]:
        return {"critic": Critics(config.periods, config.scales, config.share)}

    players = {"model": ("model",), "critic": ("critic",)}
    return Objective(model_loss, count_rows, players, attach=attach, turns=turns, watched="mel_l1")


def squares(scores_Bn: Tensor, wanted: float) -> Tensor:
    """Mean squared distance of scores from what is wanted, summed over rows."""
    return (scores_Bn - wanted).square().mean(1).sum()


def right(real_K: list[Tensor], made_K: list[Tensor]) -> tuple[Tensor, Tensor]:
    """How many judgements are on the right side of a half, and how many there are."""
    sides = [scores > 0.5 for scores in real_K] + [scores < 0.5 for scores in made_K]
    shares = torch.stack([side.float().mean(1).sum() for side in sides])
    rows = len(real_K[0])
    return shares.sum(), shares.new_tensor(float(len(sides) * rows))
