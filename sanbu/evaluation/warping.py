"""Two spoken versions of a text compared along the best alignment of their frames (dynamic time warping).

mcd  mel-cepstral distortion, 10 / ln 10 sqrt(2 sum_{k=1..13} (c_k - c*_k)^2), mean along the path, dB (Kubichek, 1993)
f0   root mean square difference of the pitch where both are voiced, semitones

Cepstra here are the discrete cosine transform of log-mels, without the loudness c_0.
"""

from __future__ import annotations

import math

import numpy as np

CEPSTRA = 13
DECIBEL = 10 / math.log(10) * math.sqrt(2)


def warp(cost_NM: np.ndarray) -> list[tuple[int, int]]:
    """The path of least cost from (0, 0) to (N - 1, M - 1) by steps (1, 0), (0, 1) and (1, 1)."""
    N, M = cost_NM.shape
    total = np.full((N + 1, M + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(2, N + M + 1):
        rows = np.arange(max(1, diagonal - M), min(N, diagonal - 1) + 1)
        columns = diagonal - rows
        before = np.minimum(total[rows - 1, columns], total[rows, columns - 1])
        before = np.minimum(before, total[rows - 1, columns - 1])
        total[rows, columns] = cost_NM[rows - 1, columns - 1] + before
    path = [(N, M)]
    while path[-1] != (1, 1):
        row, column = path[-1]
        steps = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
        path.append(min(steps, key=lambda place: total[place]))
    return [(row - 1, column - 1) for row, column in reversed(path)]


def cepstra(log_mel_MT: np.ndarray) -> np.ndarray:
    """c_1 .. c_13 [T, 13] of a log-mel [mels, T], by the orthonormal DCT-II."""
    mels = len(log_mel_MT)
    k, m = np.arange(1, CEPSTRA + 1)[:, None], np.arange(mels)
    angles = math.pi * k * (m + 0.5) / mels
    return (math.sqrt(2 / mels) * np.cos(angles) @ log_mel_MT).T


def distances(true: np.ndarray, made: np.ndarray, true_hertz: np.ndarray, made_hertz: np.ndarray) -> dict[str, float]:
    """mcd in dB and f0 in semitones of log-mels [mels, T] and [mels, U] with the pitch of each frame, NaN unvoiced."""
    first, second = cepstra(true), cepstra(made)
    gaps = np.sqrt(np.square(first[:, None] - second[None]).sum(2))
    path = warp(gaps)
    pitches = [(true_hertz[a], made_hertz[b]) for a, b in path]
    voiced = [(a, b) for a, b in pitches if np.isfinite(a) and np.isfinite(b)]
    both = [12 * math.log2(a / b) for a, b in voiced]
    mcd = DECIBEL * float(np.mean([gaps[place] for place in path]))
    return {"mcd": mcd, "f0": float(np.sqrt(np.mean(np.square(both)))) if both else math.nan}
