"""Cells of a table as features x_BF and a target y_B, for predictors.

A number becomes (v - mean) / deviation of the training rows. A category becomes one feature per name (one-hot), or the
index of its name (codes). A missing number or code is NaN, or 0 with a further feature that is 1 (flag).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sanbu.codecs.columns import Column
from sanbu.space import Batch


@dataclass(frozen=True)
class Features:
    """The columns of a table; target: the name of one of them, or nothing. names, gaps: see the top of this file."""

    columns: tuple[Column, ...]
    target: str = ""
    names: str = "one-hot"
    gaps: str = "nan"

    @cached_property
    def place(self) -> int:
        """The place of the target among the columns; -1 without one."""
        return next((place for place, each in enumerate(self.columns) if each.name == self.target), -1)

    @cached_property
    def classes(self) -> int:
        """The number of classes of the target; 0 where it is a number, or where there is none."""
        return len(self.columns[self.place].names) if self.place >= 0 else 0

    @cached_property
    def inputs(self) -> list[tuple[int, Column]]:
        """The columns that become features, with their places."""
        return [(place, column) for place, column in enumerate(self.columns) if place != self.place]

    @cached_property
    def titles(self) -> Sequence[str]:
        """A name for each feature."""
        return [title for _, column in self.inputs for title in self._titles(column)]

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.titles)

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The places of the features of each column."""
        found: dict[str, list[int]] = {}
        for _, column in self.inputs:
            first = sum(map(len, found.values()))
            found[column.name] = list(range(first, first + len(self._titles(column))))
        return found

    def _titles(self, column: Column) -> list[str]:
        flags = [f"{column.name} missing"] if self._flagged(column) else []
        if self._one_hot(column):
            return [f"{column.name}={name}" for name in column.names] + flags
        return [column.name, *flags]

    def _flagged(self, column: Column) -> bool:
        return column.missing and (self.gaps == "flag" or self._one_hot(column))

    def _one_hot(self, column: Column) -> bool:
        return column.type == "category" and self.names == "one-hot"

    def tensors(self, cells_BC: Tensor) -> Batch:
        """x, and y where the target is known; nothing without a target."""
        if self.place < 0:
            return {}
        target = cells_BC[:, self.place]
        y = target.nan_to_num(nan=0.0).long() if self.classes else target.float()
        return {"x": self.x(cells_BC), "y": y}

    def x(self, cells_BC: Tensor) -> Tensor:
        """Features x_BF, float32."""
        parts = []
        for place, column in self.inputs:
            cells_B1 = cells_BC[:, place, None]
            parts.append(self._values(column, cells_B1))
            if self._flagged(column):
                parts.append(cells_B1.isnan().float())
        return torch.cat(parts, 1)

    def _values(self, column: Column, cells_B1: Tensor) -> Tensor:
        if self._one_hot(column):
            codes_B1 = cells_B1.nan_to_num(nan=-1.0).long()
            return (codes_B1 == torch.arange(len(column.names), device=cells_B1.device)).float()
        value = cells_B1 if column.type == "category" else (cells_B1 - column.mean) / column.deviation
        return (value.nan_to_num(nan=0.0) if self.gaps == "flag" else value).float()
