"""The piano roll of a score at the frames of a mel: what sounds in each frame, and how long ago it began.

held    share of a frame during which a note of a voice and pitch is held, 0 to 1
fresh   held, times exp(-age / 0.5 s)
"""

from __future__ import annotations

import numpy as np

from sanbu.codecs.music.note_tokens import NOTES
from sanbu.codecs.music.score import LOWEST, PITCHES, Score
from sanbu.codecs.music.synthesiser import TAIL
from sanbu.layers.spectrogram import Mel

WIDTH = 2 * NOTES
FADING = 0.5  # seconds


def frames_of(score: Score, mel: Mel) -> int:
    """The frames of the sound of a score, as `synthesise` makes it."""
    return mel.frames(int((score.seconds + TAIL) * mel.rate) + 1)


def roll(score: Score, mel: Mel, first: int, frames: int) -> np.ndarray:
    """float32 [frames, WIDTH], from frame `first` on: held, then fresh, of each voice and pitch."""
    per_step = score.step_seconds * mel.rate / mel.hop
    found = np.zeros((frames, WIDTH), np.float32)
    for start, voice, pitch, length in score.notes:
        begin, end = (step * per_step - first for step in (start, start + length))
        low, high = max(0, int(begin)), min(frames, int(np.ceil(end)))
        if low >= high:
            continue
        time = np.arange(low, high)
        held = np.minimum(time + 1, end) - np.maximum(time, begin)
        age = np.maximum(0, time + 0.5 - begin) * mel.hop / mel.rate
        column = voice * PITCHES + pitch - LOWEST
        found[low:high, column] += held
        found[low:high, NOTES + column] += held * np.exp(-age / FADING)
    return found
