"""Distances between spectra: how near a vocoder's wave is to the true one, without a critic.

mel weight * mean |log mel(y) - log mel(x)|
+ weight * mean over resolutions of  |S(y) - S(x)| / |S(x)|  +  mean |log S(y) - log S(x)|

S are magnitudes, y the model's wave, |.| of the first term of a resolution the Frobenius norm. Several resolutions
keep a model from fitting one transform alone (Yamamoto and others, "Parallel WaveGAN", 2020); the mel has no upper
limit of frequency here, as in HiFi-GAN (Kong and others, 2020).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from sanbu.config import change
from sanbu.layers.spectrogram import Mel, log_mel, stft
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, count_rows
from sanbu.space import Batch, Models

QUIET = 1e-5  # magnitude below which the logarithm is cut


class SpectralConfig(ObjectiveConfig):
    """Fields of distances between spectra."""

    families: ClassVar[tuple[str, ...]] = ("vocoder",)
    mel_weight: float = Field(45.0, ge=0, description="weight of the mel distance")
    stft_weight: float = Field(1.0, ge=0, description="weight of the distances between magnitudes")
    resolutions: tuple[int, ...] = Field((2048, 1024, 512, 256), description="window lengths in samples; hop: a fourth")

    def distance(self, made_BN: Tensor, true_BN: Tensor, mel: Mel) -> tuple[Tensor, Tensor]:
        """The weighted distance and the mel distance, both summed over rows."""
        mel_B = mel_distance(made_BN, true_BN, mel)
        total = self.mel_weight * mel_B.sum()
        if self.stft_weight:
            parts = [stft_distance(made_BN, true_BN, size).sum() for size in self.resolutions]
            total = total + self.stft_weight * sum(parts) / len(parts)
        return total, mel_B.sum()


class Spectral(SpectralConfig):
    """Distances between spectra alone: fast, and a little dull to the ear."""

    kind: Literal["spectral"] = "spectral"

    def build(self) -> Objective:
        return spectral(self)


def spectral(config: SpectralConfig) -> Objective:
    """The distance of the model's wave from the true one."""

    def loss(models: Models, batch: Batch) -> Loss:
        model = models["model"]
        total, mel = config.distance(model(batch["mel"]), batch["wave"], model.mel)
        return Loss({"rows": total}, {"mel_l1": (mel.detach(), mel.new_tensor(len(batch["wave"])))})

    return Objective(loss, count_rows)


def mel_distance(made_BN: Tensor, true_BN: Tensor, mel: Mel) -> Tensor:
    """Mean |difference| of log-mels up to half of the rate, by row [B]."""
    full = change(mel, {"fmax": None}) if mel.fmax is not None else mel
    return (log_mel(made_BN, full) - log_mel(true_BN, full)).abs().mean((1, 2))


def stft_distance(made_BN: Tensor, true_BN: Tensor, size: int) -> Tensor:
    """Relative Frobenius distance of magnitudes, and the mean distance of their logarithms, added, by row [B]."""
    made, true = magnitude(made_BN, size), magnitude(true_BN, size)
    relative = (made - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1).clamp(min=QUIET)
    return relative + (made.log() - true.log()).abs().mean((1, 2))


def magnitude(wave_BN: Tensor, size: int) -> Tensor:
    """Magnitudes [B, size / 2 + 1, F], at least 1e-5."""
    spectrum = stft(wave_BN, size, size // 4, size, size // 2)
    return (spectrum.real.square() + spectrum.imag.square() + QUIET**2).sqrt()
