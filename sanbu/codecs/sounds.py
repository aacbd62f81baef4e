"""The codec of models that make sounds from nothing, or continue one: a sound, or none, in; a sound out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.codec import Written
from sanbu.codecs.waves import WaveCodec, WaveFollower
from sanbu.config import SanbuError
from sanbu.layers.spectrogram import Mel
from sanbu.space import Batch


class SoundsCodec:
    """As the codec of waves, but a prompt is the beginning, which may be missing."""

    medium, unit = "sound", "samples"

    def __init__(self, mel: Mel) -> None:
        self.mel, self.waves = mel, WaveCodec(mel)

    def save(self, folder: Path) -> None:
        """Nothing: the mel is in the recipe."""

    def vocabulary(self) -> None:
        """None: sound has no tokens."""

    def request(self, prompt: str | None, label: str | None) -> str | None:
        if label is not None:
            raise SanbuError("--label: this run makes sounds without labels; leave it out")
        return prompt

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """mel [B, mels, F] and frames [B] of the beginning, as in `WaveCodec.condition`; None: from nothing."""
        prompts = prompt if isinstance(prompt, (list, tuple)) else [prompt]
        if any(each is None for each in prompts):
            if any(each is not None for each in prompts):
                raise SanbuError("prompt: given sounds and None together; draw them alone")
            count = rows * len(prompts)
            return {"mel": torch.zeros(count, self.mel.mels, 0), "frames": torch.zeros(count, dtype=torch.long)}
        return self.waves.condition(prompts, rows, seed)

    def follow(self, stop: Sequence[str] = ()) -> WaveFollower:
        return WaveFollower(self.waves)

    def read(self, sample: Tensor) -> np.ndarray:
        """A wave as float32 [N]."""
        return self.waves.read(sample)

    def amount(self, batch: Batch) -> int:
        return int(batch["frames"].sum()) * self.mel.hop

    def show(self, sample: np.ndarray) -> str:
        return self.waves.show(sample)

    def render(self, samples: Sequence[np.ndarray], path: Path) -> Path:
        return self.waves.render(samples, path)

    def export(self, samples: Sequence[np.ndarray], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        return self.waves.export(samples, folder, frames)
