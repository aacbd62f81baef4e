"""Distances between tables: optimal transport of rows, total variation and KS of columns, relations of pairs.

W1: the least mean L1 distance that moves one set of rows onto another, numbers scaled to 0..1 by the training rows,
categories as one-hot at half weight (the protocol of Jolicoeur-Martineau and others, 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sanbu.codecs.columns import Column

MOST = 1000  # rows of an exact transport


def transport(columns: Sequence[Column], first_BC: Tensor, second_BC: Tensor, seed: int = 0) -> float:
    """W1 of two sets of rows; the smaller one is repeated to the size of the larger one, to a whole number of times."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    draw = np.random.default_rng(seed)
    small, large = sorted((scaled(columns, rows) for rows in (first_BC, second_BC)), key=len)
    small, large = (draw.permutation(rows)[:MOST] for rows in (small, large))
    times = max(1, len(large) // len(small))
    cost = cdist(np.repeat(small, times, 0), large[: times * len(small)], "cityblock")
    return float(cost[linear_sum_assignment(cost)].mean())


def scaled(columns: Sequence[Column], cells_BC: Tensor) -> np.ndarray:
    """Rows as points: numbers in 0..1 over the range of training, one-hot names and missing cells at half weight."""
    parts = []
    for place, column in enumerate(columns):
        cells = cells_BC[:, place].numpy()
        if column.type == "category":
            parts.append(0.5 * (cells[:, None] == np.arange(len(column.names))))
        else:
            width = column.high - column.low or 1.0
            parts.append(np.nan_to_num((cells - column.low) / width)[:, None])
        if column.missing:
            parts.append(0.5 * np.isnan(cells)[:, None])
    return np.concatenate(parts, 1)


def column_distances(columns: Sequence[Column], first_BC: Tensor, second_BC: Tensor) -> list[float]:
    """Total variation of categories, and the KS distance of numbers, with missing cells as a value of their own."""
    pairs = zip(columns, first_BC.T.numpy(), second_BC.T.numpy(), strict=True)
    return [variation(a, b) if column.type == "category" else kolmogorov(a, b) for column, a, b in pairs]


def variation(first: np.ndarray, second: np.ndarray) -> float:
    """sum_v |p(v) - q(v)| / 2."""
    values = np.unique(np.nan_to_num(np.concatenate((first, second)), nan=-1.0))
    p, q = (counts(values, np.nan_to_num(cells, nan=-1.0)) for cells in (first, second))
    return float(np.abs(p - q).sum() / 2)


def counts(values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The fraction of cells that have each of the values."""
    return (np.bincount(np.searchsorted(values, cells), minlength=len(values))) / len(cells)


def kolmogorov(first: np.ndarray, second: np.ndarray) -> float:
    """max_v |F(v) - G(v)|; missing cells stand below all numbers."""
    sets = [np.sort(np.nan_to_num(cells, nan=-np.inf)) for cells in (first, second)]
    values = np.concatenate(sets)
    below = [np.searchsorted(cells, values, side="right") / len(cells) for cells in sets]
    return float(np.abs(below[0] - below[1]).max())


def pair_distance(columns: Sequence[Column], first_BC: Tensor, second_BC: Tensor) -> float:
    """The mean over pairs: |r - r'| / 2 of two numbers, the total variation of the joint law of two categories.

    A number beside a category enters by its fifths.
    """
    found = []
    names = [column.type == "category" for column in columns]
    cuts = [fifths(first_BC[:, place].numpy()) for place in range(len(columns))]
    correlations = [correlation(cells) for cells in (first_BC, second_BC)]
    groups = [[group(cells[:, place].numpy(), names[place], cuts[place]) for place in range(len(columns))]
              for cells in (first_BC, second_BC)]  # fmt: skip
    for a in range(len(columns)):
        for b in range(a):
            if names[a] or names[b]:
                joint = [1000.0 * each[a] + each[b] for each in groups]
                found.append(variation(*joint))
            else:
                first, second = (each[a, b] for each in correlations)
                found.append(abs(first - second) / 2)
    return float(np.mean(found)) if found else 0.0


def fifths(cells: np.ndarray) -> np.ndarray:
    """The values that cut numbers into fifths."""
    there = cells[~np.isnan(cells)]
    return np.unique(np.quantile(there, (0.2, 0.4, 0.6, 0.8))) if len(there) else np.zeros(0)


def group(cells: np.ndarray, category: bool, cuts: np.ndarray) -> np.ndarray:
    """A group number for each cell; missing cells are a group."""
    numbers = cells + 1 if category else np.searchsorted(cuts, cells, side="left") + 1.0
    return np.where(np.isnan(cells), 0.0, numbers)


def correlation(cells_BC: Tensor) -> np.ndarray:
    """Pearson's correlation of all columns, missing cells as the mean; 0 beside a constant."""
    cells = cells_BC.numpy()
    there = ~np.isnan(cells)
    means = np.where(there, cells, 0.0).sum(0) / np.maximum(there.sum(0), 1)
    centred = np.where(there, cells - means, 0.0)
    size = np.sqrt((centred**2).sum(0))
    size[size == 0] = 1.0
    return (centred / size).T @ (centred / size)
