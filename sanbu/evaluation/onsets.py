"""Onsets of a sound by spectral flux, and how well they agree with a score (Bello and others, 2005).

flux_t = mean_m max(0, x_{t,m} - x_{t-1,m}) of log-mels x, not below -7. An onset is the largest flux within 3 frames on
each side that exceeds the mean of 16 frames on each side by 0.08.
"""

from __future__ import annotations

import numpy as np

from sanbu.codecs.music.score import Score
from sanbu.layers.spectrogram import Mel

QUIET = -7.0  # log-mels below count as silence
NEAR, AROUND = 3, 16  # frames
RISE = 0.08
TOLERANCE = 0.05  # seconds, as is usual


def onsets(log_mel_MT: np.ndarray, mel: Mel) -> np.ndarray:
    """The times of onsets, seconds, ascending."""
    loud = np.maximum(log_mel_MT, QUIET)
    rises = np.diff(loud, axis=1, prepend=QUIET)
    flux = np.maximum(0, rises).mean(0)
    highest = around(flux, NEAR).max(1)
    usual = around(flux, AROUND).mean(1)
    frames = np.flatnonzero((flux == highest) & (flux > usual + RISE))
    return (frames + 0.5) * mel.hop / mel.rate


def around(values_T: np.ndarray, count: int) -> np.ndarray:
    """The values up to `count` places before and after each one [T, 2 count + 1]; zeros beyond the ends."""
    padded = np.pad(values_T, count)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * count + 1)


def onset_f1(found: np.ndarray, score: Score) -> float:
    """F1 of onsets, in seconds, against those of a score; a pair is at most 50 ms apart, and each counts once."""
    true = np.unique([note.start for note in score.notes]) * score.step_seconds
    matched, place = 0, 0
    for time in true:
        while place < len(found) and found[place] < time - TOLERANCE:
            place += 1
        if place < len(found) and found[place] <= time + TOLERANCE:
            matched += 1
            place += 1
    return 2 * matched / (len(true) + len(found))
