"""Utterances with a segment of their wave, for a vocoder that is tuned on the mels of an acoustic model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from sanbu.codecs.codec import Codec
from sanbu.codecs.waves import WaveCodec
from sanbu.config import SanbuError
from sanbu.data.data import Data
from sanbu.data.order import shuffled
from sanbu.data.speech import SpeechConfig, SpeechRows
from sanbu.data.waves import EXAMPLE_SECONDS
from sanbu.noise import Noise
from sanbu.space import Batch, Space


class SpeechWaves(SpeechConfig):
    """Sound with its text, and a segment of each sound. path, units and voices are those of the acoustic model."""

    measure: ClassVar[str] = "vocoders"
    kind: Literal["speech-waves"] = "speech-waves"
    segment: int = Field(32, ge=2, description="frames of the segment of an utterance")

    def space(self) -> Space:
        return Space((self.mel.samples(self.segment),), mel=self.mel)

    def example(self, rows: int) -> Batch:
        wave = torch.zeros(rows, self.mel.samples(self.segment))
        return {**super().example(rows), "wave": wave, "start": torch.zeros(rows, dtype=torch.long)}

    def build(self) -> Data:
        return SpeechWaveRows(self)

    def codec(self, folder: Path) -> Codec:
        return WaveCodec.load(folder, self.mel)


class SpeechWaveRows(SpeechRows):
    """Rows of `SpeechRows`, with `wave` [B, segment hop] that begins at the frame `start` [B]."""

    def __init__(self, config: SpeechWaves) -> None:
        super().__init__(config)
        self.segment = config.segment
        self.order = [row for row in self.order if self.about[row]["frames"] >= config.segment]
        self.held = [row for row in self.held if self.about[row]["frames"] >= config.segment]
        if not self.order:
            raise SanbuError(f"data.segment: given {config.segment} frames, but no utterance is as long")
        self.rows, self.held_out_rows = len(self.order), len(self.held)

    @cached_property
    def codec(self) -> Codec:
        """The codec of these waves; its example is the first held-out utterance."""
        first = (self.held or self.order)[0]
        return WaveCodec(self.mel, self.wave(first)[: EXAMPLE_SECONDS * self.mel.rate])

    def batch(self, start: int, size: int) -> Batch:
        """Utterances at positions of the endless training order, each with a segment from a random frame."""
        places = shuffled(np.arange(start, start + size), self.rows, seed=0)
        rows = [self.order[place] for place in places]
        return self.with_segments(rows, Noise("segment", first_row=start).uniform(size).tolist())

    def held_out(self, start: int, size: int) -> Batch:
        """Held-out utterances, each with the segment in its middle."""
        rows = self.held[start : start + size]
        return self.with_segments(rows, [0.5] * len(rows))

    def held_out_waves(self, count: int) -> list[np.ndarray]:
        """The first so many held-out utterances, whole."""
        return [self.wave(row) for row in self.held[:count]]

    def with_segments(self, rows: list[int], places: list[float]) -> Batch:
        """A batch with segments that begin at these places: 0 for the first frame that is possible, 1 for the last."""
        batch, starts, waves = self.together(rows), [], []
        for row, place in zip(rows, places, strict=True):
            last = self.about[row]["frames"] - self.segment
            starts.append(min(int(place * (last + 1)), last))
            begin, size = starts[-1] * self.mel.hop, self.mel.samples(self.segment)
            cut = self.wave(row)[begin : begin + size]
            waves.append(torch.from_numpy(np.pad(cut, (0, size - len(cut)))))
        return {**batch, "wave": torch.stack(waves), "start": torch.tensor(starts)}
