"""A vocoder learns from the mels of an acoustic model: it hears them, and the true sound is its target.

parents.acoustic makes the mel of each utterance with the true durations, pitch and energy, or given the true frames
(`copy`), so that frames and samples keep their times. Such mels are smoother than true ones; a vocoder that was trained
on true mels alone sounds rough on them (Kong, Kim and Bae, "HiFi-GAN", 2020, section 4.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from sanbu.objectives.objective import Objective, ObjectiveConfig, Round
from sanbu.objectives.spectral import Spectral, SpectralConfig
from sanbu.space import Batch


class AcousticCopies(ObjectiveConfig):
    """An objective of vocoders, on the mels of the acoustic model parents.acoustic."""

    families: ClassVar[tuple[str, ...]] = SpectralConfig.families
    parent_families: ClassVar[Mapping[str, tuple[str, ...]]] = {"acoustic": ("durations", "attention", "speech-flow")}
    kind: Literal["acoustic-copies"] = "acoustic-copies"
    of: ObjectiveConfig = Field(Spectral(), description="how near the wave is: spectral or wave-game")

    def needs(self) -> tuple[str, ...]:
        return (*self.of.needs(), "acoustic")

    def build(self) -> Objective:
        own = self.of.build()

        def experience(round: Round) -> Batch:
            return own.experience(replace(round, batch=copied(round.models["acoustic"], round.batch)))

        return replace(own, experience=experience)


@torch.no_grad()
def copied(acoustic: Any, batch: Batch) -> Batch:
    """wave [B, n hop] and mel [B, mels, n]: the acoustic model's frames from `start`."""
    wave = batch["wave"]
    frames = wave.shape[1] // acoustic.mel.hop
    place_Bn = batch["start"][:, None] + torch.arange(frames, device=wave.device)
    made = acoustic.copy(batch)
    return {"wave": wave, "mel": made.gather(2, place_Bn[:, None].expand(-1, made.shape[1], -1))}
