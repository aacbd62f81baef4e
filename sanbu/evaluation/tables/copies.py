"""Copies: generated rows that are training rows, and rows that are nearer to training than they should be.

nearer: the share of generated rows whose nearest training row is closer than the nearest of as many held-out rows, ties
at one half; 0.5 is neutral, training rows themselves have 1. Neither figure is a privacy guarantee: sets that pass can
still be open to membership inference (Ganev and others, arXiv 2505.01524).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sanbu.codecs.columns import Column
from sanbu.evaluation.tables.distances import scaled

MOST = 4000  # rows compared
WARNING = "not a privacy guarantee"


def copy_rate(generated_BC: Tensor, train_BC: Tensor) -> float:
    """The fraction of generated rows of which every cell equals that of one training row."""
    known = {row.tobytes() for row in plain(train_BC)}
    return float(np.mean([row.tobytes() in known for row in plain(generated_BC)]))


def plain(cells_BC: Tensor) -> np.ndarray:
    """Rows with one bit pattern for each value: no negative zero, one NaN."""
    cells = cells_BC.numpy() + 0.0
    return np.ascontiguousarray(np.where(np.isnan(cells), np.nan, cells))


def nearer_share(
    columns: Sequence[Column], generated_BC: Tensor, train_BC: Tensor, held_out_BC: Tensor, seed: int = 0
) -> float:
    """The share of generated rows that are nearer to training than to held-out rows, as many of both."""
    draw = np.random.default_rng(seed)
    count = min(len(train_BC), len(held_out_BC), MOST)
    sets = [scaled(columns, rows) for rows in (train_BC, held_out_BC)]
    train, held_out = (rows[draw.permutation(len(rows))[:count]] for rows in sets)
    points = scaled(columns, generated_BC)[:MOST]
    first, second = (nearest_distance(points, rows) for rows in (train, held_out))
    return float(np.mean((first < second) + 0.5 * (first == second)))


def nearest_distance(points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The L1 distance of each point to its nearest row."""
    from scipy.spatial.distance import cdist

    parts = np.array_split(points, len(points) // 500 + 1)
    return np.concatenate([cdist(part, rows, "cityblock").min(1) for part in parts])
