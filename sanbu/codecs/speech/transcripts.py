"""The codec of recognisers: a sound in, its text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sanbu.codecs.audio import at_peak, read_wave
from sanbu.codecs.codec import Written
from sanbu.codecs.speech.symbols import SYMBOLS
from sanbu.codecs.waves import WaveCodec
from sanbu.config import SanbuError
from sanbu.files import write_text
from sanbu.layers.spectrogram import Mel
from sanbu.space import Batch, Draft


class TranscriptCodec:
    """Prompts are sound files, samples [N], or lists of these; each sound is scaled to one peak."""

    medium, unit = "text", "frames"

    def __init__(self, mel: Mel) -> None:
        self.waves = WaveCodec(mel)

    def save(self, folder: Path) -> None:
        """Nothing: the mel is in the recipe."""

    def vocabulary(self) -> None:
        """None: the letters are the same in every run."""

    def request(self, prompt: str | None, label: str | None) -> str | None:
        if label is not None:
            raise SanbuError("--label: a recogniser has no labels; leave it out")
        if prompt is None:
            raise SanbuError("--prompt: give the sound file to read, as in: -p in.wav")
        return prompt

    def before(self, prompt: str | None) -> str:
        """Nothing stands before a transcript."""
        return ""

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """mel [B, mels, T] and frames [B]. None: a second of silence."""
        prompts = prompt if isinstance(prompt, (list, tuple)) else [prompt]
        return self.waves.condition([self.sound(each) for each in prompts], rows, seed)

    def sound(self, prompt: Any) -> np.ndarray:
        """Samples [N] whose peak is that of the training data."""
        rate = self.waves.mel.rate
        if prompt is None:
            return np.zeros(rate, np.float32)
        wave = read_wave(prompt, rate) if isinstance(prompt, (str, Path, bytes)) else np.asarray(prompt, np.float32)
        return at_peak(wave)

    def follow(self, stop: Sequence[str] = ()) -> TranscriptFollower:
        """A follower that reads the letters."""
        return TranscriptFollower(self)

    def read(self, sample: Tensor) -> str:
        """The text of ids."""
        return "".join(SYMBOLS[number].removeprefix("/") for number in sample.tolist() if number).strip()

    def amount(self, batch: Batch) -> int:
        return int(batch["frames"].sum())

    def show(self, sample: str) -> str:
        return sample

    def render(self, samples: Sequence[str], path: Path) -> Path:
        """Write all texts into one file, one per line."""
        path = path.with_name(path.name + ".txt")
        write_text(path, "".join(f"{text}\n" for text in samples))
        return path

    def export(self, samples: Sequence[str], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write all texts into a file beside the name of the folder."""
        path = self.render(samples, folder)
        return {"texts": len(samples), "folder": str(path)}


class TranscriptFollower:
    """Keeps the text of each row."""

    def __init__(self, codec: TranscriptCodec) -> None:
        self.codec = codec
        self.found: list[str] = []
        self.pieces: list[str] = []

    def update(self, draft: Draft) -> Tensor:
        """Read the letters of a draft."""
        self.found = [self.codec.read(row) for row in draft.sample]
        self.pieces = self.found
        return draft.done

    def results(self) -> list[str]:
        return self.found
