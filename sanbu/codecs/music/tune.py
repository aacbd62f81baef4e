"""A tune: a score with its sound, written as MIDI, as sound, or as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sanbu.codecs.audio import is_sound, write_wave
from sanbu.codecs.codec import Written
from sanbu.codecs.music.midi import is_midi, write_midi
from sanbu.codecs.music.score import BAR, BEAT, VOICES, Score
from sanbu.codecs.music.synthesiser import synthesise
from sanbu.config import SanbuError
from sanbu.files import replace_atomically
from sanbu.layers.spectrogram import Mel, log_mel

LONGEST = 30.0  # seconds that are drawn
COLOURS = ("tab:red", "tab:blue", "tab:green", "tab:orange")  # of the voices


@dataclass(frozen=True, eq=False)
class Tune:
    """A score and its wave, float32 [N], at a rate in Hz; where no model has made the wave, the synthesiser does."""

    score: Score
    mel: Mel
    played: np.ndarray | None = None

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self.mel.rate

    @property
    def wave(self) -> np.ndarray:
        """The sound, float32 [N]."""
        return synthesise(self.score, self.rate) if self.played is None else self.played

    def __str__(self) -> str:
        score = self.score
        voices = ", ".join(VOICES[voice] for voice in sorted({note.voice for note in score.notes}))
        bars = -(-score.steps // BAR)
        return (
            f"{len(score.notes)} notes in {bars} bars, {score.tempo} beats per minute, {score.seconds:.1f} s: {voices}"
        )


def export(tunes: Sequence[Tune], folder: Path) -> Written:
    """Write a tune into one file, by its suffix: .mid, .png, or a format of sound with a picture beside it.

    Any other path is a folder, which gets a MIDI file, a sound and a picture for each tune.
    """
    if is_midi(folder) or folder.suffix.lower() == ".png" or is_sound(folder):
        if len(tunes) > 1:
            raise SanbuError(f"--out: given the file {folder} for {len(tunes)} tunes; give a folder")
        return {"tunes": 1, **write_one(tunes[0], folder)}
    folder.mkdir(parents=True, exist_ok=True)
    for number, tune in enumerate(tunes):
        for suffix in (".mid", ".wav"):
            write_one(tune, folder / f"{number:04d}{suffix}")
    return {"tunes": len(tunes), "folder": str(folder)}


def write_one(tune: Tune, path: Path) -> Written:
    """Write one file; beside a sound, a picture."""
    if is_midi(path):
        write_midi(path, tune.score)
        return {"folder": str(path)}
    if path.suffix.lower() == ".png":
        draw(tune, path)
        return {"folder": str(path)}
    write_wave(path, tune.wave, tune.rate)
    picture = path.with_suffix(".png")
    draw(tune, picture)
    return {"folder": str(path), "picture": str(picture)}


def draw(tune: Tune, path: Path) -> None:
    """Write a PNG: the notes, and the log-mel of the sound, of the first 30 seconds."""
    wave = tune.wave[: int(LONGEST * tune.rate)]
    seconds = len(wave) / tune.rate
    figure, (top, bottom) = figure_of(2, (10, 6))
    draw_roll(top, tune.score, seconds)
    frames = log_mel(torch.from_numpy(np.ascontiguousarray(wave))[None], tune.mel)[0].numpy()
    bottom.imshow(frames, origin="lower", aspect="auto", extent=(0, seconds, 0, tune.mel.mels))
    bottom.set(ylabel="mel band", xlabel="seconds")
    save(figure, path)


def draw_rolls(scores: Sequence[Score], path: Path) -> None:
    """Write a PNG with the notes of several scores, below each other."""
    figure, axes = figure_of(len(scores), (10, 2.5 * len(scores)))
    for axis, score in zip(axes, scores, strict=True):
        draw_roll(axis, score, min(LONGEST, score.seconds))
    axes[-1].set(xlabel="seconds")
    save(figure, path)


def figure_of(rows: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, 1, squeeze=False)[:, 0]


def draw_roll(axis: Any, score: Score, seconds: float) -> None:
    """The notes of a score as bars, a colour per voice, with a line at each bar."""
    step = score.step_seconds
    for voice, colour in enumerate(COLOURS):
        notes = [note for note in score.notes if note.voice == voice]
        if notes:
            starts, lengths = ([getattr(note, name) * step for note in notes] for name in ("start", "length"))
            pitches = [note.pitch for note in notes]
            axis.barh(pitches, lengths, 0.8, starts, color=colour, label=VOICES[voice])
    for bar in range(int(seconds / (BAR * step)) + 1):
        axis.axvline(bar * BAR * step, color="grey", linewidth=0.3)
    axis.legend(loc="upper right", fontsize="x-small")
    axis.set(ylabel="MIDI note", xlim=(0, seconds), title=f"{60 / step / BEAT:.0f} beats per minute")


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:
        temporary.write_bytes(written.getvalue())
