"""A picture of a sound: wave, log-mel and pitch above each other."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from sanbu.files import replace_atomically
from sanbu.layers.pitch import pitch
from sanbu.layers.spectrogram import Mel, log_mel

LONGEST = 30.0  # seconds that are drawn


def draw_sound(wave: np.ndarray, mel: Mel, path: Path) -> None:
    """Write a PNG of the first 30 seconds of a wave [N]."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(picture_of(wave, mel))


def picture_of(wave: np.ndarray, mel: Mel) -> bytes:
    """A PNG of the first 30 seconds of a wave [N]."""
    from matplotlib.figure import Figure

    wave = wave[: int(LONGEST * mel.rate)]
    frames = log_mel(torch.from_numpy(np.ascontiguousarray(wave))[None], mel)[0].numpy()
    hertz = pitch(wave, mel.rate, mel.hop, frames.shape[1])
    seconds = len(wave) / mel.rate
    figure = Figure(figsize=(10, 6), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1, 2, 1))
    top.plot(np.arange(len(wave)) / mel.rate, wave, linewidth=0.5)
    top.set(ylabel="wave", ylim=(-1, 1), xlim=(0, seconds))
    middle.imshow(frames, origin="lower", aspect="auto", extent=(0, seconds, 0, mel.mels))
    middle.set(ylabel="mel band")
    middles = (np.arange(len(hertz)) + 0.5) * mel.hop / mel.rate
    bottom.plot(middles, hertz, ".", markersize=3)
    bottom.set(ylabel="pitch, Hz", xlabel="seconds")
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=100)
    return written.getvalue()
