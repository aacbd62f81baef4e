"""Whole sounds as rows, for models that continue sounds. A sound longer than `seconds` gives several rows.

Each row is a sound of its own: its mel and its codes know nothing of the rest of a long clip. A hash of each clip's
content decides its split.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from sanbu.codecs.audio import at_peak
from sanbu.codecs.codec import Codec
from sanbu.codecs.sounds import SoundsCodec
from sanbu.config import SanbuError
from sanbu.data.chance import chance
from sanbu.data.data import Data, DataConfig
from sanbu.data.order import shuffled
from sanbu.data.sound_files import clips
from sanbu.layers.spectrogram import SILENCE, Mel, log_mel
from sanbu.space import Batch, Space

LEAST = 0.25  # share of a full row, below which the rest of a long clip is left out


class Sounds(DataConfig):
    """Whole sounds, as log-mels."""

    measure: ClassVar[str] = "objective"
    kind: Literal["sounds"] = "sounds"
    path: str = Field(
        "spoken",
        description="spoken (espeak-ng's voices), folder of sound files, one file, or .parquet with a column `audio`",
    )
    mel: Mel = Field(Mel(), description="how a wave becomes a mel; as in parents.codec")
    seconds: float = Field(4.0, gt=0, description="longest row; what is longer gives several rows")
    normalise: bool = Field(True, description="scale every clip so that its largest sample is 0.95")
    validation: float = Field(0.05, ge=0, lt=1, description="fraction of clips held out")

    def frames(self) -> int:
        """The longest row, in frames of the mel."""
        return max(1, int(self.seconds * self.mel.rate) // self.mel.hop)

    def space(self) -> Space:
        return Space((self.mel.samples(self.frames()),), mel=self.mel)

    def example(self, rows: int) -> Batch:
        frames = self.frames()
        whole = torch.full((rows,), frames)
        return {"mel": torch.zeros(rows, self.mel.mels, frames), "frames": whole, "row": torch.arange(rows)}

    def build(self) -> Data:
        return SoundRows(self)

    def codec(self, folder: Path) -> Codec:
        return SoundsCodec(self.mel)


class SoundRows:
    """Rows of `mel` [B, M, longest], silent beyond `frames` [B], and `row` [B], the number of the row."""

    def __init__(self, config: Sounds) -> None:
        self.config, self.mel = config, config.mel
        self.names, self.waves, source = clips(config.path, config.mel.rate)
        self.fingerprint = source
        self.codec = SoundsCodec(config.mel)
        self.cuts: list[tuple[int, int, int]] = []  # clip, first sample, last
        self.held_cuts: list[tuple[int, int, int]] = []
        for clip, wave in enumerate(self.waves):
            held = chance(wave.tobytes()) < config.validation
            (self.held_cuts if held else self.cuts).extend(self.parts(clip, len(wave)))
        if not self.cuts:
            raise SanbuError(f"data.path: {config.path!r} has {len(self.waves)} clips, and none is left for training")
        self.rows, self.held_out_rows = len(self.cuts), len(self.held_cuts)

    def parts(self, clip: int, samples: int) -> list[tuple[int, int, int]]:
        """The rows of a clip; a short rest of a long one is left out."""
        size = self.mel.samples(self.config.frames())
        starts = range(0, max(1, samples), size)
        kept = [start for start in starts if start == 0 or samples - start >= LEAST * size]
        return [(clip, start, min(start + size, samples)) for start in kept]

    def describe(self) -> str:
        seconds = sum(map(len, self.waves)) / self.mel.rate
        return (
            f"{len(self.waves):,} clips, {seconds / 60:,.1f} minutes at {self.mel.rate} Hz:"
            f" {self.rows:,} rows for training, {self.held_out_rows:,} held out"
        )

    def wave(self, cut: tuple[int, int, int]) -> np.ndarray:
        """A row as sound, float32 [N]."""
        clip, start, end = cut
        wave = self.waves[clip].astype(np.float32) / 32768
        return (at_peak(wave) if self.config.normalise else wave)[start:end]

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions of the endless training order."""
        places = shuffled(np.arange(start, start + size), self.rows, seed=0)
        return self.together([self.cuts[place] for place in places]) | {"row": torch.from_numpy(places)}

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out rows, in order."""
        return self.together(self.held_cuts[start : start + size])

    def together(self, cuts: list[tuple[int, int, int]]) -> Batch:
        """Rows as a batch."""
        longest = self.config.frames()
        mel = torch.full((len(cuts), self.mel.mels, longest), SILENCE)
        frames = torch.zeros(len(cuts), dtype=torch.long)
        for row, cut in enumerate(cuts):
            wave = torch.from_numpy(np.ascontiguousarray(self.wave(cut)))
            found = log_mel(wave[None], self.mel)[0, :, :longest]
            mel[row, :, : found.shape[1]] = found
            frames[row] = found.shape[1]
        return {"mel": mel, "frames": frames}
