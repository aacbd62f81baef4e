"""Connectionist temporal classification: -log p(text | sound), summed over all alignments (Graves and others, 2006).

p(text) = sum over paths of frames that give the text, once repeated letters are joined and blanks are left out.
Parts of the mel are hidden while learning (SpecAugment; Park and others, 2019).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sanbu.models.acoustic.acoustic import CENTRE
from sanbu.noise import Noise
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Round
from sanbu.space import Batch, Models

BLANK = 0


class Ctc(ObjectiveConfig):
    """-log p(text | sound), per letter."""

    families: ClassVar[tuple[str, ...]] = ("recogniser",)
    kind: Literal["ctc"] = "ctc"
    bands: int = Field(12, ge=0, description="mel bands that are hidden at most, twice per row; 0: none")
    frames: int = Field(16, ge=0, description="frames that are hidden at most, twice per row; 0: none")

    def build(self) -> Objective:
        def experience(round: Round) -> Batch:
            if not round.learning:
                return round.batch
            hidden = hide(round.batch["mel"], self.bands, self.frames, round.noise)
            return {**round.batch, "mel": hidden}

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
