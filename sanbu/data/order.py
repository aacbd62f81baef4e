"""A random order of rows as a pure function of position, so no permutation is stored.

A Feistel network of four rounds permutes 0 .. 4^k - 1, the next power of four: (L, R) -> (R, L xor F(R + key)). A
result outside 0 .. rows - 1 is permuted again until it is inside (cycle walking; Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002). Each epoch has its own key.
"""

from __future__ import annotations

import numpy as np

from sanbu.noise import key


def shuffled(positions: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Global positions (int64) as rows 0 .. rows - 1; each row occurs once per epoch."""
    epochs, places = np.divmod(positions, rows)
    result = np.empty_like(places)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        result[chosen] = permute(places[chosen], rows, key(seed, "order", int(epoch)))
    return result


def permute(places: np.ndarray, rows: int, secret: int) -> np.ndarray:
    """A permutation of 0 .. rows - 1, keyed by `secret`."""
    half = max(1, (max(rows - 1, 1).bit_length() + 1) // 2)
    result = _feistel(places.astype(np.uint64), half, secret)
    outside = result >= rows
    while outside.any():
        result[outside] = _feistel(result[outside], half, secret)
        outside = result >= rows
    return result.astype(np.int64)


def _feistel(values: np.ndarray, half: int, secret: int) -> np.ndarray:
    mask = np.uint64((1 << half) - 1)
    left, right = values >> np.uint64(half), values & mask
    for turn in range(4):
        round_key = np.uint64(key(secret, turn) & (2**64 - 1))
        left, right = right, left ^ (_mix(right + round_key) & mask)
    return (left << np.uint64(half)) | right


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
