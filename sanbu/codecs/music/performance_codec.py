"""The codec of performances: a score in, or none, for one that a language model draws; tunes with their sound out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.audio import write_wave
from sanbu.codecs.codec import Written
from sanbu.codecs.music.note_tokens import END, decode
from sanbu.codecs.music.notes_codec import NotesCodec, tokens_of
from sanbu.codecs.music.tune import Tune, export
from sanbu.codecs.speech.speech_codec import SpeechFollower
from sanbu.codecs.text import batch_of
from sanbu.config import SanbuError
from sanbu.layers.spectrogram import Mel
from sanbu.space import Batch, Draft


class PerformanceCodec:
    """Scores as tokens, sound as frames. A prompt is a whole score, which is played as it is."""

    medium, unit = "music", "frames"

    def __init__(self, mel: Mel) -> None:
        self.mel = mel

    def save(self, folder: Path) -> None:
        """Nothing to save: the tokens are the same in every run, and the mel is in the recipe."""

    def vocabulary(self) -> Sequence[bytes]:
        """The tokens of scores, which a language model of notes must share."""
        return NotesCodec().vocabulary()

    def request(self, prompt: str | None, label: str | None) -> str | None:
        if label is not None:
            raise SanbuError("--label: music has no labels; leave it out")
        return prompt

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """tokens [B, S], padded on the right, and length [B], which is 1 where a score is to be drawn first.

        prompt: the path of a MIDI file, a score, a tune, None, or a list of these. Raises SanbuError.
        """
        prompts = prompt if isinstance(prompt, (list, tuple)) else [prompt]
        whole = [tokens_of(each) for each in prompts]
        ended = [ids if ids == [END] else [*ids, END] for ids in whole]
        return batch_of([ids for ids in ended for _ in range(rows)])

    def follow(self, stop: Sequence[str] = ()) -> PerformanceFollower:
        """A follower of tokens and samples."""
        return PerformanceFollower(self.mel)

    def read(self, sample: Tensor) -> np.ndarray:
        """A wave as float32 [N]."""
        return sample.detach().float().cpu().numpy()

    def amount(self, batch: Batch) -> int:
        return int(batch["frames"].sum())

    def show(self, sample: Tune) -> str:
        return str(sample)

    def render(self, samples: Sequence[Tune], path: Path) -> Path:
        """Write the sound of all samples into one WAV file, with a second between them."""
        pause = np.zeros(self.mel.rate, np.float32)
        parts = [part for tune in samples for part in (tune.wave, pause)]
        return write_wave(path.with_name(path.name + ".wav"), np.concatenate(parts[:-1]), self.mel.rate)

    def export(self, samples: Sequence[Tune], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write one file by its suffix, or a folder; see `sanbu.codecs.music.tune.export`."""
        return export(samples, folder)


class PerformanceFollower:
    """Collects the samples of each row, and its score."""

    def __init__(self, mel: Mel) -> None:
        self.mel, self.sound = mel, SpeechFollower()
        self.tokens = torch.zeros(0, 0, dtype=torch.long)

    @property
    def pieces(self) -> Sequence[np.ndarray]:
        """The samples that the last draft added to each row."""
        return self.sound.pieces

    def update(self, draft: Draft) -> Tensor:
        """Keep what is new."""
        if "score" in draft.record:
            self.tokens = draft.record["score"].cpu()
        return self.sound.update(draft)

    def results(self) -> list[Tune]:
        """The tune of each row. Raises SanbuError for a score that was cut before its first note."""
        waves = self.sound.results()
        tokens = self.tokens if len(self.tokens) else torch.full((len(waves), 1), -1)
        return [self.tune(row, wave) for row, wave in zip(tokens, waves, strict=True)]

    def tune(self, row: Tensor, wave: np.ndarray) -> Tune:
        """The tune of a row of tokens, in which negative ones fill up."""
        score = decode(row[row >= 0].tolist())
        if score is None:
            raise SanbuError("the piece was cut before its first note; raise strategy.first.notes.max_tokens")
        return Tune(score, self.mel, wave)
