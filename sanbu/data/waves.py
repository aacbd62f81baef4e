"""Segments of waves with their mels, for vocoders. A row is a segment; a hash of each clip's content decides its split.

The mel of a segment is cut from that of its clip, so frames at its ends have the context of a whole clip.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from sanbu.codecs.audio import at_peak
from sanbu.codecs.codec import Codec
from sanbu.codecs.waves import WaveCodec
from sanbu.config import SanbuError
from sanbu.data.chance import chance
from sanbu.data.data import Data, DataConfig
from sanbu.data.order import shuffled
from sanbu.data.sound_files import clips
from sanbu.layers.spectrogram import Mel, log_mel_unpadded
from sanbu.noise import Noise
from sanbu.space import Batch, Space

EXAMPLE_SECONDS = 4  # of the sound that a run copies where no prompt is given


class Waves(DataConfig):
    """Segments of sound and their log-mels."""

    measure: ClassVar[str] = "vocoders"
    kind: Literal["waves"] = "waves"
    path: str = Field(
        "spoken",
        description="spoken (espeak-ng's voices), music (synthetic), folder of sound files, one file, or .parquet with"
        " a column `audio`",
    )
    mel: Mel = Field(Mel(), description="how a wave becomes a mel; kept in the run")
    segment: int = Field(32, ge=2, description="frames per row")
    normalise: bool = Field(True, description="scale every clip so that its largest sample is 0.95")
    validation: float = Field(0.05, ge=0, lt=1, description="fraction of clips held out")

    def space(self) -> Space:
        return Space((self.mel.samples(self.segment),), mel=self.mel)

    def example(self, rows: int) -> Batch:
        frames = self.segment
        return {"wave": torch.zeros(rows, self.mel.samples(frames)), "mel": torch.zeros(rows, self.mel.mels, frames)}

    def build(self) -> Data:
        return WaveRows(self)

    def codec(self, folder: Path) -> Codec:
        return WaveCodec.load(folder, self.mel)


class WaveRows:
    """Rows of `wave` [B, segment hop] in [-1, 1] and `mel` [B, mels, segment]."""

    def __init__(self, config: Waves) -> None:
        self.config, self.mel = config, config.mel
        self.names, self.waves, source = clips(config.path, config.mel.rate)
        self.fingerprint = source
        chances = [chance(wave.tobytes()) for wave in self.waves]
        held = [number for number, each in enumerate(chances) if each < config.validation]
        self.held_clips, taken = held, set(held)
        self.clips = [number for number in range(len(self.waves)) if number not in taken]
        self.ends = np.cumsum([self.slots(number) for number in self.clips])
        held_slots = [self.slots(number) for number in held]
        self.held_ends = np.cumsum(held_slots)
        if not self.clips:
            raise SanbuError(f"data.path: {config.path!r} has {len(self.waves)} clips, and none is left for training")
        self.rows = int(self.ends[-1])
        self.held_out_rows = int(self.held_ends[-1]) if held else 0

    def slots(self, clip: int) -> int:
        """The number of whole segments in a clip; at least 1."""
        return max(1, len(self.waves[clip]) // self.mel.samples(self.config.segment))

    @cached_property
    def codec(self) -> WaveCodec:
        """The codec of these waves; its example is the first held-out clip."""
        chosen = self.held_clips[0] if self.held_clips else self.clips[0]
        return WaveCodec(self.mel, self.wave(chosen)[: EXAMPLE_SECONDS * self.mel.rate])

    def describe(self) -> str:
        seconds = sum(map(len, self.waves)) / self.mel.rate
        return (
            f"{len(self.waves):,} clips, {seconds / 60:,.1f} minutes at {self.mel.rate} Hz:"
            f" {len(self.clips):,} for training, {len(self.held_clips):,} held out"
        )

    def wave(self, clip: int) -> np.ndarray:
        """A whole clip, float32 [N]."""
        wave = self.waves[clip].astype(np.float32) / 32768
        return at_peak(wave) if self.config.normalise else wave

    def held_out_waves(self, count: int) -> list[np.ndarray]:
        """The first so many held-out clips, whole."""
        return [self.wave(clip) for clip in self.held_clips[:count]]

    def batch(self, start: int, size: int) -> Batch:
        """Rows at positions of the endless training order; each segment is shifted at random inside its clip."""
        places = shuffled(np.arange(start, start + size), self.rows, seed=0)
        shifts = Noise("segment", first_row=start).uniform(size).tolist()
        which = np.searchsorted(self.ends, places, side="right")
        cuts = []
        for place, part, shift in zip(places, which, shifts, strict=True):
            slot = int(place - (self.ends[part - 1] if part else 0))
            cuts.append(self.cut(self.clips[part], slot, shift - 0.5))
        return self.together(cuts)

    def held_out(self, start: int, size: int) -> Batch:
        """Segments of the held-out clips, in order, without shift."""
        cuts = []
        for place in range(start, min(start + size, self.held_out_rows)):
            part = int(np.searchsorted(self.held_ends, place, side="right"))
            slot = int(place - (self.held_ends[part - 1] if part else 0))
            cuts.append(self.cut(self.held_clips[part], slot, 0.0))
        return self.together(cuts)

    def cut(self, clip: int, slot: int, shift: float) -> np.ndarray:
        """A segment with the context that its mel needs: samples before, segment, samples after."""
        wave, mel, frames = self.wave(clip), self.mel, self.config.segment
        size = mel.samples(frames)
        last = max(0, len(wave) - size)
        begin = min(max(0, round((slot + shift) * size)), last)
        wave = np.pad(wave, (0, max(0, size - len(wave))))
        padded = np.pad(wave, mel.padding, mode="reflect")
        return padded[begin : begin + (frames - 1) * mel.hop + mel.n_fft]

    def together(self, cuts: list[np.ndarray]) -> Batch:
        """Cuts as a batch."""
        whole = torch.from_numpy(np.stack(cuts))
        pad, size = self.mel.padding, self.mel.samples(self.config.segment)
        return {"wave": whole[:, pad : pad + size].contiguous(), "mel": log_mel_unpadded(whole, self.mel)}
