"""Connectionist temporal classification: -log p(text | sound), summed over all alignments (Graves and others, 2006).

p(text) = sum over paths of frames that give the text, once repeated letters are joined and blanks are left out.
While learning, parts of the mel are hidden (SpecAugment; Park and others, 2019), and its bands are stretched, as by a
vocal tract of another length (Jaitly and Hinton, 2013), and its frames, as by another rate. Bands are raised and
lowered along a random curve, as by another microphone, and noise of a random level and tilt is added.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.layers.ctc import BLANK
from sanbu.models.acoustic.acoustic import CENTRE
from sanbu.noise import Noise
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.space import Batch, Models

KNOTS = 5  # of the curve over the bands


class Ctc(ObjectiveConfig):
    """-log p(text | sound), per letter."""

    families: ClassVar[tuple[str, ...]] = ("recogniser",)
    kind: Literal["ctc"] = "ctc"
    bands: int = Field(12, ge=0, description="mel bands that are hidden at most, twice per row; 0: none")
    frames: int = Field(16, ge=0, description="frames that are hidden at most, twice per row; 0: none")
    stretch: float = Field(0.1, ge=0, lt=0.5, description="bands and frames are stretched by at most this fraction")
    colour: float = Field(0.0, ge=0, description="deviation of the random curve over the bands, nepers; 0: none")
    noise: float = Field(0.0, ge=0, le=1, description="share of rows to which noise is added")

    def build(self) -> Objective:
        def experience(round: Round) -> Batch:
            if not round.learning:
                return round.batch
            mel, frames = stretched(round.batch["mel"], round.batch["frames"], self.stretch, round.noise)
            mel = noisy(coloured(mel, self.colour, round.noise), self.noise, round.noise)
            return {**round.batch, "mel": hide(mel, self.bands, self.frames, round.noise), "frames": frames}

        return Objective(ctc_loss, count, experience=experience, alone=True)


def ctc_loss(models: Models, batch: Batch) -> Loss:
    """The sum over texts; a text that its sound is too short for teaches nothing."""
    model = models["model"]
    logprobs = model(batch["mel"], batch["frames"]).transpose(0, 1)
    steps, letters = model.steps(batch["frames"]), batch["symbols"]
    total = F.ctc_loss(logprobs, batch["ids"], steps, letters, BLANK, reduction="sum", zero_infinity=True)
    return Loss({"letters": total}, {"nats_per_letter": (total.detach(), letters.sum())})


def count(batch: Batch) -> dict[str, float]:
    """The number of letters."""
    return {"letters": float(batch["symbols"].sum())}


def hide(mel_BMT: Tensor, bands: int, frames: int, noise: Noise) -> Tensor:
    """The mels with two strips of bands and two of frames of each row at the mean level."""
    mel_BMT = mel_BMT.clone()
    rows = len(mel_BMT)
    for axis, most in ((1, bands), (1, bands), (2, frames), (2, frames)):
        size = mel_BMT.shape[axis]
        width = (noise.uniform(rows) * (most + 1)).long()
        start = (noise.uniform(rows) * (size - width).clamp(min=1)).long()
        place = torch.arange(size, device=mel_BMT.device)
        strip = (place >= start[:, None]) & (place < (start + width)[:, None])
        mel_BMT.masked_fill_(strip[:, :, None] if axis == 1 else strip[:, None, :], CENTRE)
    return mel_BMT


def coloured(mel_BMT: Tensor, deviation: float, noise: Noise) -> Tensor:
    """The mels with a curve per row added to the bands: straight between KNOTS normal values."""
    if not deviation:
        return mel_BMT
    knots_B1K = deviation * noise.normal(len(mel_BMT), 1, KNOTS)
    curve_B1M = F.interpolate(knots_B1K, size=mel_BMT.shape[1], mode="linear", align_corners=True)
    return mel_BMT + curve_B1M.transpose(1, 2)


def noisy(mel_BMT: Tensor, share: float, noise: Noise) -> Tensor:
    """A share of the mels with noise: powers of an exponential law, 3 to 7 nepers below the row's peak, tilted."""
    if not share:
        return mel_BMT
    B, M, T = mel_BMT.shape
    chosen_B, level_B, tilt_B = (noise.uniform(B) for _ in range(3))
    slope_BM = (2 * tilt_B - 1)[:, None] * torch.linspace(-1, 1, M, device=mel_BMT.device)
    power_BMT = -noise.uniform(B, M, T).clamp(min=1e-6).log()
    floor_BMT = (mel_BMT.amax((1, 2)) - 3 - 4 * level_B)[:, None, None] + slope_BM[..., None] + power_BMT.log() / 2
    return torch.where((chosen_B < share)[:, None, None], torch.logaddexp(mel_BMT, floor_BMT), mel_BMT)


def stretched(mel_BMT: Tensor, frames_B: Tensor, most: float, noise: Noise) -> tuple[Tensor, Tensor]:
    """The mels with their bands and their frames stretched by factors from 1 - most to 1 + most; and their frames.

    A row that would be longer than the batch is not stretched in time.
    """
    if not most:
        return mel_BMT, frames_B
    B, _, T = mel_BMT.shape
    bands_B, times_B = (1 + most * (2 * noise.uniform(B) - 1) for _ in range(2))
    longer_B = (frames_B * times_B).round().long()
    times_B = torch.where(longer_B <= T, times_B, 1.0)
    resampled = resample(mel_BMT, bands_B, torch.full_like(frames_B, mel_BMT.shape[1]))
    resampled = resample(resampled.transpose(1, 2), times_B, frames_B).transpose(1, 2)
    return resampled, torch.where(longer_B <= T, longer_B, frames_B).clamp(min=1)


def resample(x_BNC: Tensor, factor_B: Tensor, length_B: Tensor) -> Tensor:
    """Axis 1 stretched by a factor per row, linearly. What lies beyond a row's length is not read; its end repeats."""
    N = x_BNC.shape[1]
    place_BN = torch.arange(N, device=x_BNC.device) / factor_B[:, None]
    last_B1 = length_B[:, None] - 1
    before_BN = torch.minimum(place_BN.floor(), last_B1)
    part_BN1 = (place_BN - before_BN).clamp(max=1)[..., None]
    first, second = (torch.minimum(index.long(), last_B1) for index in (before_BN, before_BN + 1))
    at = lambda index: x_BNC.gather(1, index[..., None].expand_as(x_BNC))  # noqa: E731
    return torch.lerp(at(first), at(second), part_BN1)
