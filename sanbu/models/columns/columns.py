"""The contract of models of columns. cells_BC: rows of a table (sanbu.codecs.columns); known_BC: which cells are given.

    forward(cells_BC, known_BC) -> log-probability_BC of each cell, given the cells before it in the model's `order`
    law(cells_BC, known_BC, column, further) -> the Law of one column, given the same: as among the rows that were seen,
        or (further) as wide as it is for a further row; a model that knows no difference gives the same law
    complete(cells_BC, known_BC, uniform_BC, missing) -> cells_BC with every other cell drawn at once; instead of `law`

The probability of a number is that of its cell on the grid of the column; of a continuous one it is divided by the
width of the cell, so that it is a density.
"""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sanbu.codecs.columns import Column
from sanbu.models.model import ModelConfig
from sanbu.space import Space

FINE = 1e-7  # of the range: the width of a cell of a column without grid


class Law(Protocol):
    """The law of one cell in each of B rows."""

    def draw(self, uniform_B: Tensor, missing: bool = True) -> Tensor:
        """A cell for each uniform number in (0, 1), float64. missing: whether it may be missing."""

    def log_prob(self, cell_B: Tensor) -> Tensor:
        """The log-probability of cells, float64."""


class ColumnsConfig(ModelConfig):
    """What models of columns share: they need a table."""

    family: ClassVar[str] = "columns"

    def check(self, space: Space) -> None:
        if not space.columns:
            raise ValueError("model: this kind models the columns of a table, but the data has none; set data=table")


def order_of(space: Space) -> tuple[int, ...]:
    """The target, categories by the number of their names, then numbers by that of their values."""
    rest = [place for place in range(len(space.columns)) if place != space.target]
    rest.sort(key=lambda place: fineness(space.columns[place]))
    return (*([space.target] if space.target >= 0 else []), *rest)


def fineness(column: Column) -> tuple[bool, float]:
    """A key that sorts columns: categories before numbers, few possible values before many."""
    if not column.dense:
        return False, len(column.names)
    return True, (column.high - column.low) / column.step if column.step else math.inf


def on_grid(column: Column, value: Tensor) -> Tensor:
    """Drawn numbers on the grid of their column."""
    if column.decimals is None:
        return value
    scale = 10.0**column.decimals
    first = round(column.low * scale)
    number = ((value * scale - first) / column.unit).round()
    return (number * column.unit + first) / scale


def cell_width(column: Column) -> float:
    """The width of a cell of the grid of a column of numbers."""
    return column.step or max(column.high - column.low, 1.0) * FINE


def per_width(column: Column) -> float:
    """What the mass of a cell of the grid is divided by: its width for a density, 1 for a probability."""
    return cell_width(column) if column.type == "continuous" else 1.0


def level_of(column: Column, cell_B: Tensor) -> Tensor:
    """The index of the level of each cell; `column.levels` where it is a number of the density."""
    level_B = torch.full(cell_B.shape, column.levels, dtype=torch.long, device=cell_B.device)
    if column.type == "category":
        level_B = torch.where(cell_B.isnan(), level_B, cell_B.nan_to_num(nan=0.0).long())
    elif column.values:
        values = cell_B.new_tensor(column.values)
        found = torch.searchsorted(values, cell_B.contiguous()).clamp(max=len(values) - 1)
        level_B = torch.where(values[found] == cell_B, found, level_B)
    return torch.where(cell_B.isnan(), column.levels - 1, level_B) if column.missing else level_B


def possible(column: Column, cell_B: Tensor) -> Tensor:
    """Which cells the law of a column can have: a cell that is missing where none was in training it cannot."""
    return torch.ones_like(cell_B, dtype=torch.bool) if column.missing else ~cell_B.isnan()
