"""The cells of a row as real numbers, for models of real numbers, and back.

A number or a date becomes a normal score: z = Phi^-1(p), p uniform between F(v - h) and F(v + h), where F is the
distribution of the training cells of its label, kept as quantiles, and h half a step of the grid of the column. So a
value of much mass fills an interval of scores, and the code of a column is standard normal for each label. Back:
F^-1(Phi(z)), on the grid and within the range of training. A category is one number per name, 1 for its own and -1 for
the others; back: the largest. A missing cell is one name more, and beside a number a further number of 1 or -1.
B rows, C columns, F numbers of a code, L labels, K knots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sanbu.codecs.columns import Column
from sanbu.config import Config

MOST = 6.0  # of a score
QUANTILES = 33  # of a column, at evenly spaced scores
FEW = 10  # cells of a label, below which it has the quantiles of all rows


class Knots(Config):
    """The distribution of a column of numbers, for each label; one for all rows without labels.

    values: quantiles, and the two ends of each spike; chances: F there.
    """

    name: str
    values: tuple[tuple[float, ...], ...]
    chances: tuple[tuple[float, ...], ...]

    def describe(self) -> str:
        """How many there are."""
        return f"{len(self.values[0])} quantiles" + (f" for each of {len(self.values)} labels" * (len(self.values) > 1))


@dataclass(frozen=True)
class RowCode:
    """columns: of a row. knots: of those that are numbers, by name.

    label: the place of a category that stands beside the numbers, -1 for none. shares: of each of its names.
    """

    columns: tuple[Column, ...]
    knots: tuple[Knots, ...]
    label: int = -1
    shares: tuple[float, ...] = ()

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Where the numbers of each column begin and end; an empty span for the label."""
        found, end = [], 0
        for place, column in enumerate(self.columns):
            start, end = end, end + (0 if place == self.label else width_of(column))
            found.append((start, end))
        return found

    @property
    def width(self) -> int:
        """F."""
        return self.spans[-1][1]

    # -- in -----------------------------------------------------------------------------------------------------------

    def encode(self, cells_BC: Tensor, uniform_BC: Tensor) -> Tensor:
        """x_BF, float32. uniform_BC: where in its interval the score of a number is, in (0, 1)."""
        label_B = self.labels(cells_BC)
        parts = [
            self._encode(place, cells_BC[:, place], uniform_BC[:, place], label_B)
            for place in range(len(self.columns))
            if place != self.label
        ]
        return torch.cat(parts, 1).float()

    def _encode(self, place: int, cell_B: Tensor, uniform_B: Tensor, label_B: Tensor) -> Tensor:
        column, gone_B = self.columns[place], cell_B.isnan()
        if not column.dense:
            code_B = torch.where(gone_B, len(column.names), cell_B.nan_to_num(nan=0.0)).long()
            return 2.0 * (code_B[:, None] == torch.arange(width_of(column), device=cell_B.device)) - 1.0
        low_B, high_B = self._interval(place, cell_B.nan_to_num(nan=column.low), label_B)
        chance_B = torch.where(gone_B, uniform_B, low_B + uniform_B * (high_B - low_B))
        score_B = torch.special.ndtri(chance_B).clamp(-MOST, MOST)
        return torch.stack((score_B, 2.0 * gone_B - 1.0), 1) if column.missing else score_B[:, None]

    def _interval(self, place: int, value_B: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
        """F at the two ends of the cell of the grid around numbers."""
        half, curve = self.columns[place].step / 2, self._curve(place, label_B)
        low_B, high_B = share_below(*curve, value_B - half, False), share_below(*curve, value_B + half, True)
        return low_B, torch.maximum(low_B, high_B)

    def _curve(self, place: int, label_B: Tensor) -> tuple[Tensor, Tensor]:
        """value_BK and chance_BK of each row."""
        knots = self._named[self.columns[place].name]
        curve_2LK = torch.tensor((knots.values, knots.chances), dtype=torch.float64, device=label_B.device)
        return curve_2LK[0, label_B], curve_2LK[1, label_B]

    @cached_property
    def _named(self) -> dict[str, Knots]:
        return {each.name: each for each in self.knots}

    def given(self, given_BC: Tensor) -> Tensor:
        """mask_BF: the numbers of the given cells."""
        widths = torch.tensor([end - start for start, end in self.spans], device=given_BC.device)
        return given_BC.repeat_interleave(widths, 1)

    def gaps(self) -> Tensor:
        """gap_F: the numbers that say that a cell is missing; -1 there means that it is not."""
        found = torch.zeros(self.width, dtype=torch.bool)
        for place, (_, end) in enumerate(self.spans):
            if self.columns[place].missing and place != self.label:
                found[end - 1] = True
        return found

    def labels(self, cells_BC: Tensor) -> Tensor:
        """label_B; zeros without one."""
        if self.label < 0:
            return torch.zeros(len(cells_BC), dtype=torch.long, device=cells_BC.device)
        return cells_BC[:, self.label].nan_to_num(nan=0.0).long()

    # -- out ----------------------------------------------------------------------------------------------------------

    def decode(self, x_BF: Tensor, label_B: Tensor, missing: bool = True) -> Tensor:
        """cells_BC, float64. missing: whether a cell may be missing."""
        found = [
            label_B.double() if place == self.label else self._decode(place, x_BF[:, start:end], label_B, missing)
            for place, (start, end) in enumerate(self.spans)
        ]
        return torch.stack(found, 1)

    def _decode(self, place: int, x_BW: Tensor, label_B: Tensor, missing: bool) -> Tensor:
        column = self.columns[place]
        if not column.dense:
            names = len(column.names)
            open_BW = x_BW if missing or not names else x_BW[:, :names]
            best_B = open_BW.argmax(1).double()
            return torch.where(best_B < names, best_B, torch.nan)
        value_B = quantile(*self._curve(place, label_B), torch.special.ndtr(x_BW[:, 0].double()))
        value_B = torch.from_numpy(column.round(value_B.cpu().numpy())).to(x_BW.device)
        value_B = value_B.clamp(column.low, column.high)
        return torch.where(x_BW[:, 1] > 0, torch.nan, value_B) if column.missing and missing else value_B

    def draw_labels(self, uniform_B: Tensor) -> Tensor:
        """A label for each uniform number, by the shares of training."""
        if self.label < 0:
            return torch.zeros_like(uniform_B, dtype=torch.long)
        upper_V = torch.tensor(self.shares, dtype=torch.float64, device=uniform_B.device).cumsum(0)
        return torch.searchsorted(upper_V / upper_V[-1], uniform_B, right=True).clamp(max=len(upper_V) - 1)


def width_of(column: Column) -> int:
    """How many numbers code a cell of a column."""
    return 1 + column.missing if column.dense else max(1, len(column.names) + column.missing)


def fit_code(columns: tuple[Column, ...], label: int, cells_BC: Tensor) -> tuple[tuple[Knots, ...], tuple[float, ...]]:
    """The knots of training rows, and the shares of the names of the label."""
    cells, code_B = cells_BC.numpy(), np.zeros(len(cells_BC), dtype=int)
    if label >= 0:
        code_B = cells[:, label].astype(int)
    counts = np.bincount(code_B, minlength=len(columns[label].names) if label >= 0 else 1)
    labels = [code_B == label for label in range(len(counts))]
    knots = [
        knots_of(column, [chosen_cells(cells[:, place], chosen) for chosen in labels])
        for place, column in enumerate(columns)
        if column.dense
    ]
    return tuple(knots), tuple((counts / counts.sum()).tolist()) if label >= 0 else ()


def chosen_cells(cells: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen cells that are not missing, sorted; all of them where the chosen ones are few."""
    own = np.sort(cells[chosen & ~np.isnan(cells)])
    return own if len(own) >= FEW else np.sort(cells[~np.isnan(cells)])


def knots_of(column: Column, labels: list[np.ndarray]) -> Knots:
    """The distribution of a column from the sorted cells of each label."""
    curves = [curve_of(column, cells) for cells in labels]
    most = max(curve.shape[1] for curve in curves)
    values, chances = [], []
    for curve in curves:
        further = (0, most - curve.shape[1])
        padded = np.pad(curve, ((0, 0), further), "edge").tolist()
        values.append(tuple(padded[0]))
        chances.append(tuple(padded[1]))
    return Knots(name=column.name, values=tuple(values), chances=tuple(chances))


def curve_of(column: Column, cells: np.ndarray) -> np.ndarray:
    """Values and chances [2, K] of sorted cells; equal cells are spread over their cell of the grid."""
    if not len(cells):
        return np.array([[column.low, column.low], [0.0, 1.0]])
    half = column.step / 2
    _, first, counts = np.unique(cells, return_index=True, return_counts=True)
    place = np.arange(len(cells)) - np.repeat(first, counts) + 0.5  # among equal cells
    spread = cells + column.step * (place / np.repeat(counts, counts) - 0.5)
    ends = cells[0] - half, cells[-1] + half
    scores = torch.linspace(-3, 3, QUANTILES - 2, dtype=torch.float64)
    chance = torch.special.ndtr(scores).numpy()
    inner = np.quantile(spread, chance, method="hazen").clip(*ends)
    spikes = np.intersect1d(column.spikes, cells)
    below, upto = (np.searchsorted(cells, spikes, side) / len(cells) for side in ("left", "right"))
    values = np.concatenate(([ends[0]], inner, spikes - half, spikes + half, [ends[1]]))
    chances = np.concatenate(([0.0], chance, below, upto, [1.0]))
    order = np.lexsort((chances, values))
    return np.stack((values[order], np.maximum.accumulate(chances[order])))


def share_below(value_BK: Tensor, chance_BK: Tensor, value_B: Tensor, included: bool) -> Tensor:
    """F(v), linear between knots; of a value that is several knots the share below it, or up to it (included)."""
    right_B1 = torch.searchsorted(value_BK, value_B[:, None], right=included).clamp(1, value_BK.shape[1] - 1)
    (low_B, high_B), (below_B, upto_B) = sides(value_BK, right_B1), sides(chance_BK, right_B1)
    width_B = high_B - low_B
    part_B = torch.where(width_B > 0, (value_B - low_B) / width_B.clamp(min=1e-300), float(included))
    return below_B + part_B.clamp(0, 1) * (upto_B - below_B)


def quantile(value_BK: Tensor, chance_BK: Tensor, chance_B: Tensor) -> Tensor:
    """F^-1, linear between knots."""
    right_B1 = torch.searchsorted(chance_BK, chance_B[:, None]).clamp(1, value_BK.shape[1] - 1)
    (low_B, high_B), (below_B, upto_B) = sides(value_BK, right_B1), sides(chance_BK, right_B1)
    part_B = ((chance_B - below_B) / (upto_B - below_B).clamp(min=1e-300)).clamp(0, 1)
    return low_B + part_B * (high_B - low_B)


def sides(knots_BK: Tensor, right_B1: Tensor) -> tuple[Tensor, Tensor]:
    """The knots before and at a place."""
    return knots_BK.gather(1, right_B1 - 1)[:, 0], knots_BK.gather(1, right_B1)[:, 0]
