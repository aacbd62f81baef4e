"""The margin of each column of numbers: a map between values and normal scores, kept as quantiles.

z = Phi^-1(F(v)), F the distribution of the training values that are no spikes, linear in between; beyond the training
range it goes on with its mean slope. A value that stands for several quantiles has the middle of their scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sanbu.codecs.columns import Column
from sanbu.models.columns.columns import cell_width

KNOTS = 129  # of a column
MOST = 8.0  # of a score


class Margins(nn.Module):
    """knots_CK: quantiles of each column; scores_CK: their normal scores. spikes: whether they count too."""

    fitted = True
    knots: Tensor
    scores: Tensor

    def __init__(self, columns: Sequence[Column], count: int = KNOTS, spikes: bool = False) -> None:
        super().__init__()
        self.columns, self.spikes = columns, spikes
        for name in ("knots", "scores"):
            self.register_buffer(name, torch.zeros(len(columns), count, dtype=torch.float64))

    def fit(self, cells_BC: Tensor) -> None:
        """Take the quantiles of rows."""
        share = np.linspace(0, 1, self.knots.shape[1])
        for place, column in enumerate(self.columns):
            cells = cells_BC[:, place].cpu().numpy()
            left_out = np.isnan(cells)
            if not self.spikes:
                left_out |= np.isin(cells, column.spikes)
            values = cells[~left_out]
            if not column.dense or not len(values):
                values = np.array([column.low, max(column.high, column.low + 1.0)])
            chance = np.clip(share, 0.5 / len(values), 1 - 0.5 / len(values))
            self.knots[place] = torch.from_numpy(np.quantile(values, share))
            self.scores[place] = torch.special.ndtri(torch.from_numpy(chance))

    def score(self, value: Tensor, place: int) -> Tensor:
        """The score of values of a column; the middle of a value that stands for several."""
        knots, scores = self.knots[place], self.scores[place]
        value = value.contiguous()
        left = torch.searchsorted(knots, value)
        right = torch.searchsorted(knots, value, right=True)
        first, last = scores[left.clamp(max=len(knots) - 1)], scores[(right - 1).clamp(min=0)]
        found = torch.where(right > left, (first + last) / 2, along(value, knots, scores, left))
        low, high = knots[0], knots[-1]
        slope = (scores[-1] - scores[0]) / (high - low).clamp(min=1e-300)
        found = torch.where(value < low, scores[0] + (value - low) * slope, found)
        found = torch.where(value > high, scores[-1] + (value - high) * slope, found)
        return found.clamp(-MOST, MOST)

    def edges(self, cell: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """The scores of the ends of the cell of the grid around numbers; at the ends of the range also all beyond."""
        knots, half = self.knots[place], cell_width(self.columns[place]) / 2
        low, high = self.score(cell - half, place), self.score(cell + half, place)
        low = torch.where(cell == knots[0], -torch.inf, low)
        return low, torch.where(cell == knots[-1], torch.inf, high)

    def value(self, score: Tensor, place: int) -> Tensor:
        """The value of scores of a column, within the training range."""
        knots, scores = self.knots[place], self.scores[place]
        found = along(score, scores, knots, torch.searchsorted(scores, score.contiguous()))
        return found.clamp(float(knots[0]), float(knots[-1]))


def along(x: Tensor, knots: Tensor, heights: Tensor, right: Tensor) -> Tensor:
    """Linear interpolation at x, which lies before the knot number `right`."""
    right = right.clamp(1, len(knots) - 1)
    width = knots[right] - knots[right - 1]
    part = torch.where(width > 0, (x - knots[right - 1]) / width.clamp(min=1e-300), 0.5)
    return heights[right - 1] + part * (heights[right] - heights[right - 1])
