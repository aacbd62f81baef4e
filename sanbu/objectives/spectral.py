"""Distances between spectra: how near a vocoder's wave is to the true one, without a critic.

mel weight * mean |log mel(y) - log mel(x)|
+ weight * mean over resolutions of  |S(y) - S(x)| / |S(x)|  +  mean |log S(y) - log S(x)|

S are magnitudes, y the model's wave, |.| of the first term of a resolution the Frobenius norm. Several resolutions
keep a model from fitting one transform alone (Yamamoto and others, "Parallel WaveGAN", 2020); the mel has no upper
limit of frequency here, as in HiFi-GAN (Kong and others, 2020). A model that says magnitudes (`magnitudes`) is compared
by them directly, on its own transform: the second line with one resolution.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from sanbu.config import change
from sanbu.layers.spectrogram import FLOOR, Mel, log_mel, mel_filters, stft
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, count_rows
from sanbu.space import Batch, Models

QUIET, AUDIBLE = 1e-5, 1e-2  # magnitudes below which a logarithm is cut, of waves and of a model's own


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
        if hasattr(model, "magnitudes"):
            return magnitude_loss(model, batch)
        total, mel = config.distance(model(batch["mel"]), batch["wave"], model.mel)
        return Loss({"rows": total}, {"mel_l1": (mel.detach(), mel.new_tensor(len(batch["wave"])))})

    return Objective(loss, count_rows)


def magnitude_loss(model: Any, batch: Batch) -> Loss:
    """The distance of a model's magnitudes from those of the wave; frames that reach beyond a segment are left out."""
    mel, wave_BN = model.mel, batch["wave"]
    edge = -(-mel.padding // mel.hop)
    inner = slice(edge, batch["mel"].shape[2] - edge)
    spectrum = stft(wave_BN, mel.n_fft, mel.hop, mel.window, mel.padding)[..., inner]
    made = model.magnitudes(batch["mel"])[..., inner]
    true = (spectrum.real.square() + spectrum.imag.square()).sqrt()
    heard = (mel_filters(mel, made.device) @ made.detach()).clamp(min=FLOOR).log()
    mel_B = (heard - batch["mel"][..., inner]).abs().mean((1, 2))
    total = distance(made, true, AUDIBLE).sum()
    return Loss({"rows": total}, {"mel_l1": (mel_B.sum(), made.new_tensor(len(made)))})


def mel_distance(made_BN: Tensor, true_BN: Tensor, mel: Mel) -> Tensor:
    """Mean |difference| of log-mels up to half of the rate, by row [B]."""
    full = change(mel, {"fmax": None}) if mel.fmax is not None else mel
    return (log_mel(made_BN, full) - log_mel(true_BN, full)).abs().mean((1, 2))


def stft_distance(made_BN: Tensor, true_BN: Tensor, size: int) -> Tensor:
    """Relative Frobenius distance of magnitudes, and the mean distance of their logarithms, added, by row [B]."""
    return distance(magnitude(made_BN, size), magnitude(true_BN, size), QUIET)


def distance(made_BCF: Tensor, true_BCF: Tensor, floor: float) -> Tensor:
    """Relative Frobenius distance, and the mean |difference| of logarithms above a floor, added, by row [B]."""
    loudness = true_BCF.flatten(1).norm(dim=1)
    relative = (made_BCF - true_BCF).flatten(1).norm(dim=1) / loudness.clamp(min=floor)
    logarithms = made_BCF.clamp(min=floor).log() - true_BCF.clamp(min=floor).log()
    return relative + logarithms.abs().mean((1, 2))


def magnitude(wave_BN: Tensor, size: int) -> Tensor:
    """Magnitudes [B, size / 2 + 1, F], at least 1e-5."""
    spectrum = stft(wave_BN, size, size // 4, size, size // 2)
    return (spectrum.real.square() + spectrum.imag.square() + QUIET**2).sqrt()
