"""Small tables made in memory, and models fitted to them."""

import numpy as np
import torch

from sanbu.codecs.columns import Column
from sanbu.space import Space
from sanbu.strategies.cells import Cells
from sanbu.strategies.strategy import draw


def names(name, *values, missing=False):
    return Column(name=name, type="category", names=values, missing=missing)


def number(name, low, high, **fields):
    return Column(name=name, type="continuous", low=low, high=high, **fields)


def space(*columns, target=-1):
    return Space((len(columns),), columns=columns, target=target)


def fitted(config, space, cells, seed=0):
    torch.manual_seed(seed)
    model = config.build(space).eval()
    model.fit({"cells": torch.as_tensor(cells, dtype=torch.float64)})
    return model


def drawn(model, space, condition, rows, seed=0, **fields):
    """The last draft of rows with a condition of one row."""
    many = {name: tensor.expand(rows, *tensor.shape[1:]) for name, tensor in condition.items()}
    strategy = Cells(**fields).build(space)
    return draw(strategy, {"model": model}, many or {"rows": torch.zeros(rows)}, torch.arange(seed, seed + rows))


def given(*cells):
    """A condition of one row; None is a cell to draw."""
    values = [float("nan") if cell is None else float(cell) for cell in cells]
    known = [cell is not None for cell in cells]
    return {"cells": torch.tensor([values], dtype=torch.float64), "given": torch.tensor([known])}


def binary_rows(count=4000):
    """Three binary columns: the third is mostly the first xor the second."""
    draw = np.random.default_rng(0)
    first, second = draw.random(count) < 0.3, draw.random(count) < 0.6
    third = (first ^ second) ^ (draw.random(count) < 0.15)
    return np.stack((first, second, third), 1).astype(float)


BINARY = space(names("a", "no", "yes"), names("b", "no", "yes"), names("c", "no", "yes"))
STATES = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=torch.float64)


def counts_of(sample):
    """How often each of the eight states is there."""
    return torch.bincount((sample @ torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)).long(), minlength=8)


def enough(observed, expected):
    """Pearson's chi-square of counts against probabilities, as a p-value."""
    from scipy.stats import chi2

    total = float(observed.sum())
    kept = expected > 1e-12
    statistic = float(((observed[kept] - total * expected[kept]) ** 2 / (total * expected[kept])).sum())
    return float(chi2.sf(statistic, int(kept.sum()) - 1))
