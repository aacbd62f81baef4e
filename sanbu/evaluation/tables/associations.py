"""How much two columns have to do with each other, in -1 .. 1.

Two numbers: Pearson's correlation. A number and a category: the correlation ratio (Pearson, 1905), the deviation of the
means of the categories over that of all numbers. Two categories: Cramer's V (1946). Rows that lack a cell are left out.
Where a column is constant the association is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sanbu.codecs.columns import Column

Array = np.ndarray


def associations(columns: Sequence[Column], cells_BC: Array) -> Array:
    """The association of each pair of columns [C, C]; 1 on the diagonal."""
    found = np.eye(len(columns))
    names = [not column.dense for column in columns]
    for a in range(len(columns)):
        for b in range(a):
            pair = cells_BC[:, [a, b]]
            pair = pair[~np.isnan(pair).any(1)]
            if len(pair) > 1:
                found[a, b] = association(pair[:, 0], pair[:, 1], names[a], names[b])
                found[b, a] = found[a, b]
    return found


def association(x: Array, y: Array, x_names: bool, y_names: bool) -> float:
    """That of two columns. x_names, y_names: whether they are categories."""
    if x_names and y_names:
        return cramer(x, y)
    if x_names or y_names:
        return ratio(x, y) if x_names else ratio(y, x)
    size = x.std() * y.std()
    if size == 0:
        return 0.0
    product = (x - x.mean()) * (y - y.mean())
    return float(product.mean() / size)


def ratio(names: Array, number: Array) -> float:
    """The correlation ratio of a number, 0 to 1."""
    _, group = np.unique(names, return_inverse=True)
    means = np.bincount(group, weights=number) / np.bincount(group)
    spread = number.std()
    return float(means[group].std() / spread) if spread > 0 else 0.0


def cramer(x: Array, y: Array) -> float:
    """sqrt(chi^2 / (n (k - 1))), k the smaller number of names."""
    (_, a), (_, b) = (np.unique(each, return_inverse=True) for each in (x, y))
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1.0)
    least = min(counts.shape)
    if least < 2:
        return 0.0
    expected = np.outer(counts.sum(1), counts.sum(0)) / len(x)
    square = (counts - expected) ** 2 / expected
    return float(np.sqrt(square.sum() / (len(x) * (least - 1))))
