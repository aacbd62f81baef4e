"""The fundamental frequency of frames of a wave by YIN (de Cheveigné and Kawahara, 2002).

d(lag) = sum_j (x_j - x_{j + lag})^2;   d'(lag) = d(lag) lag / sum_{k <= lag} d(k)

The pitch of a frame is the first dip of d' below a threshold, refined by a parabola; without one the frame is unvoiced.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

LOWEST, HIGHEST = 65.0, 500.0  # Hz
MIDDLE = 200.0  # Hz; where pitches are octaves, they are counted from here
DIP = 0.2  # of d' in a voiced frame
QUIET = 1e-3  # root mean square of a frame that has no pitch
AT_ONCE = 2048  # frames


def pitch(wave: np.ndarray, rate: int, hop: int, frames: int) -> np.ndarray:
    """The pitch of each frame in Hz, float32 [frames]; NaN where unvoiced. Frame t is centred on hop (t + 1/2)."""
    longest = int(rate / LOWEST) + 2
    size = 2 * longest
    start = hop // 2 - size // 2
    before = max(0, -start)
    padded = np.pad(wave.astype(np.float32), (before, 2 * size + hop * frames))
    views = sliding_window_view(padded, size)[before + start :][: hop * frames : hop]
    parts = [pitch_of(views[first : first + AT_ONCE], rate, longest) for first in range(0, frames, AT_ONCE)]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def pitch_of(frames_FN: np.ndarray, rate: int, longest: int) -> np.ndarray:
    """The pitch of frames, Hz; NaN where unvoiced."""
    normal = normalised_difference(frames_FN, longest)
    shortest = int(rate / HIGHEST)
    inner = normal[:, shortest:-1]
    lowest = (inner <= normal[:, shortest - 1 : -2]) & (inner < normal[:, shortest + 1 :])
    dips = lowest & (inner < DIP)
    lag = dips.argmax(1) + shortest
    rows = np.arange(len(lag))
    before, here, after = (normal[rows, lag + shift] for shift in (-1, 0, 1))
    curve = before - 2 * here + after
    bent = np.abs(curve) > 1e-12
    shift = np.where(bent, 0.5 * (before - after) / np.where(bent, curve, 1), 0.0)
    loud = np.sqrt(np.square(frames_FN).mean(1)) > QUIET
    found = rate / (lag + np.clip(shift, -1, 1))
    return np.where(dips.any(1) & loud, found, np.nan)


def normalised_difference(frames_FN: np.ndarray, longest: int) -> np.ndarray:
    """d' [F, longest] of frames of 2 longest samples, by a Fourier transform."""
    window = frames_FN.shape[1] - longest
    fft = 1 << (frames_FN.shape[1] + window - 1).bit_length()
    whole = np.fft.rfft(frames_FN, fft)
    first = np.fft.rfft(frames_FN[:, :window], fft)
    products = np.fft.irfft(whole * first.conj(), fft)[:, :longest]
    energy = np.cumsum(np.pad(np.square(frames_FN), ((0, 0), (1, 0))), 1)
    energies = energy[:, window : window + longest] - energy[:, :longest]
    difference = np.maximum(energies[:, :1] + energies - 2 * products, 0)
    total = np.cumsum(difference[:, 1:], 1)
    lags = np.arange(1, longest)
    scaled = difference[:, 1:] * lags / np.maximum(total, 1e-12)
    return np.concatenate((np.ones((len(scaled), 1)), scaled), 1)
