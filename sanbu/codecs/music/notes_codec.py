"""The codec of scores: a score, or the beginning of one, in as tokens; tunes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanbu.codecs.codec import Written
from sanbu.codecs.music.midi import read_midi
from sanbu.codecs.music.note_tokens import END, VOCABULARY, decode, encode, kind_of
from sanbu.codecs.music.score import Note, Score
from sanbu.codecs.music.tune import Tune, draw_rolls, export
from sanbu.codecs.text import batch_of
from sanbu.config import SanbuError
from sanbu.layers.spectrogram import Mel
from sanbu.space import Batch, Draft


class NotesCodec:
    """Tokens of notes. A prompt is a score to continue."""

    medium, unit = "music", "tokens"

    def __init__(self, mel: Mel | None = None) -> None:
        self.mel = mel or Mel()

    def save(self, folder: Path) -> None:
        """Nothing to save: the tokens are the same in every run."""

    def vocabulary(self) -> Sequence[bytes]:
        """The name of each token."""
        return ["{} {}".format(*kind_of(token)).encode() for token in range(VOCABULARY)]

    def request(self, prompt: str | None, label: str | None) -> str | None:
        if label is not None:
            raise SanbuError("--label: music has no labels; leave it out")
        return prompt

    def condition(self, prompt: Any, rows: int, seed: int = 0) -> Batch:
        """tokens [B, S], padded on the right, and length [B].

        prompt: the path of a MIDI file, a score, a tune, None for a new piece, or a list of these. Raises SanbuError.
        """
        prompts = prompt if isinstance(prompt, (list, tuple)) else [prompt]
        return batch_of([tokens_of(each) for each in prompts for _ in range(rows)])

    def follow(self, stop: Sequence[str] = ()) -> NotesFollower:
        """A follower of tokens."""
        return NotesFollower(self)

    def read(self, sample: Tensor) -> Tune:
        """The tune of tokens; negative ones fill up a row. Raises SanbuError where they hold no whole note."""
        score = decode(sample[sample >= 0].tolist())
        if score is None:
            raise SanbuError("the piece was cut before its first note; raise strategy.max_tokens")
        return Tune(score, self.mel)

    def amount(self, batch: Batch) -> int:
        return batch["tokens"].numel()

    def show(self, sample: Tune) -> str:
        return str(sample)

    def render(self, samples: Sequence[Tune], path: Path) -> Path:
        """Write the notes of all samples into one picture."""
        path = path.with_name(path.name + ".png")
        draw_rolls([tune.score for tune in samples], path)
        return path

    def export(self, samples: Sequence[Tune], folder: Path, frames: Sequence[Sequence[Any]] = ()) -> Written:
        """Write one file by its suffix, or a folder; see `sanbu.codecs.music.tune.export`."""
        return export(samples, folder)


def tokens_of(prompt: Any) -> list[int]:
    """The tokens of a prompt without the END; END alone begins a new piece. Raises SanbuError."""
    if prompt is None or prompt == "":
        return [END]
    if isinstance(prompt, (str, Path)):
        prompt = read_midi(prompt)
    score = prompt.score if isinstance(prompt, Tune) else prompt
    if not isinstance(score, Score):
        raise SanbuError(f"prompt: given {type(prompt).__name__}, allowed: a MIDI file, a score, a tune, or none")
    return encode(score)[:-1]


class NotesFollower:
    """Keeps the last draft; rows end when the strategy ends them."""

    def __init__(self, codec: NotesCodec) -> None:
        self.codec, self.sample = codec, torch.zeros(0, 0, dtype=torch.long)
        self.told: list[int] = []

    def update(self, draft: Draft) -> Tensor:
        """Keep the draft."""
        self.sample = torch.where(draft.committed, draft.sample, -1)
        return draft.done

    @property
    def pieces(self) -> list[tuple[Note, ...]]:
        """The notes of each row that became complete since they were last asked for."""
        scores = [decode(row[row >= 0].tolist()) for row in self.sample]
        notes = [score.notes if score else () for score in scores]
        told = self.told or [0] * len(notes)
        self.told = list(map(len, notes))
        return [each[count:] for each, count in zip(notes, told, strict=True)]

    def results(self) -> list[Tune]:
        """The tune of each row."""
        return [self.codec.read(row) for row in self.sample]
