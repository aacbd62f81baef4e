"""Speaking all frames at once: mel, and the duration, pitch and energy of each symbol (FastSpeech 2, 2021).

mean |mel - mel*| + mean (log(1 + d) - log(1 + d*))^2 + mean (p - p*)^2 + mean (e - e*)^2
+ mean ((mel* - m) / SPREAD)^2 / 2

Means are over the real frames and symbols of the whole batch; what fills up a row is not seen. The last term is of the
means m of symbols. Where the corpus has no durations, they are those of the best monotonic alignment of frames with
these means, under the weights at the start of the round (Kim and others, "Glow-TTS", 2020; Mehta and others,
"Matcha-TTS", 2023).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sanbu.layers.alignment import expand
from sanbu.models.acoustic.acoustic import SPREAD, Prediction, energy_of, inside, mean_of_symbols
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.space import Batch, Models


class SpeakingConfig(ObjectiveConfig):
    """Distance of the mel, and of duration, pitch and energy of each symbol."""

    families: ClassVar[tuple[str, ...]] = ("durations",)
    weights: tuple[float, float, float] = Field((1.0, 1.0, 1.0), description="of duration, pitch and energy")
    aligner: float = Field(1.0, ge=0, description="weight of the means by which symbols and frames are aligned")

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sums over frames and symbols."""
        given = batch["durations"], batch["contour"], batch["energy"]
        return self.loss_of(models["model"](batch["ids"], batch["voice"], *given), batch)

    def loss_of(self, made: Prediction, batch: Batch) -> Loss:
        """The loss of a prediction."""
        true = batch["mel"]
        real_BT = inside(batch["frames"], true.shape[2])
        mel = ((made.mel - true).abs().mean(1) * real_BT).sum()
        wanted = (batch["durations"].float().log1p(), batch["pitch"], batch["energy"])
        seen_BS = batch["ids"] > 0
        real = (seen_BS, batch["durations"] > 0, batch["durations"] > 0)  # a symbol without frames has no pitch
        gaps = [a - b for a, b in zip(made[1:4], wanted, strict=True)]
        squares = [(gap.square() * each).sum() for gap, each in zip(gaps, real, strict=True)]
        gap = (true - expand(made.means, batch["durations"], true.shape[2]).transpose(1, 2)) / SPREAD
        means = (gap.square().mean(1) * real_BT).sum() / 2
        weighted = [weight * each for weight, each in zip(self.weights, squares, strict=True)]
        symbols = torch.stack(weighted).sum()
        frames = batch["frames"].sum()
        names = ("duration", "pitch", "energy")
        metrics = {name: (each.detach(), seen_BS.sum()) for name, each in zip(names, squares, strict=True)}
        return Loss(
            {"frames": mel + self.aligner * means, "symbols": symbols}, {"mel_l1": (mel.detach(), frames), **metrics}
        )


class Speaking(SpeakingConfig):
    """Distance of the mel; durations are the corpus', or found by the model's own aligner."""

    kind: Literal["speaking"] = "speaking"

    def build(self) -> Objective:
        return Objective(self.loss, count, experience=experience, alone=True)


def count(batch: Batch) -> dict[str, float]:
    """The number of real frames and symbols."""
    return {"frames": float(batch["frames"].sum()), "symbols": float(batch["symbols"].sum())}


def experience(round: Round) -> Batch:
    """Pitch and energy of each symbol, the mean over its frames; `contour` is the pitch of frames."""
    batch = round.batch
    durations = batch["durations"] if "durations" in batch else aligned(round.models["model"], batch)
    pitch = mean_of_symbols(batch["pitch"], durations)
    return {
        **batch,
        "durations": durations,
        "contour": batch["pitch"],
        "pitch": pitch,
        "energy": mean_of_symbols(energy_of(batch["mel"]), durations),
    }


@torch.no_grad()
def aligned(model: Any, batch: Batch) -> Tensor:
    """Durations by the model's own aligner."""
    return model.align(batch["ids"], batch["voice"], batch["mel"], batch["frames"])
