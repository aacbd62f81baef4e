"""A forest for each column, given the columns before it: p(row) = prod_c p(x_c | x_<c).

Numbers become normal scores (margins.py). A ridge regression takes what is linear in the columns before; a forest takes
its residuals, and its leaves keep their empirical law (trees.py). Categories enter trees by the order of what they
predict. A law is the mean over the trees, with a little of the margin of the column, so that no cell is impossible.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.codecs.columns import Column
from sanbu.config import Auto, Positive
from sanbu.models.columns.columns import ColumnsConfig, Law, level_of, order_of, possible
from sanbu.models.columns.leaf_law import LeafLaw
from sanbu.models.columns.margins import Margins
from sanbu.models.columns.ridge import ridge
from sanbu.models.columns.trees import Array, Cells, Forest, grow
from sanbu.space import Batch, Space

MANY = 2000  # rows from which on the automatic sizes are others
FEW = 30  # numbers that a regression needs


class ColumnForest(ColumnsConfig):
    """A forest per column on the columns before it."""

    kind: Literal["column-forest"] = "column-forest"
    searches: ClassVar[tuple[str, ...]] = ("closed-form",)
    trees: Positive | Auto = Field("auto", description="trees per column; auto: 20, for 2,000 rows or more 5")
    leaf: Positive | Auto = Field("auto", description="rows per leaf at least; auto: 5, for 2,000 rows or more 10")
    quantiles: int = Field(32, ge=1, description="parts of the density of a leaf")
    linear: Literal["ridge", "none"] = Field("ridge", description="regression before the trees")
    background: float = Field(0.001, gt=0, lt=1, description="share of the column's own law in every law")

    def build(self, space: Space) -> nn.Module:
        return ForestColumns(self, space)


class ForestColumns(nn.Module):
    """The forests. A column's features are the columns before it in `order`, one number each."""

    fitted = True
    seed: Tensor

    def __init__(self, config: ColumnForest, space: Space) -> None:
        super().__init__()
        self.config, self.order = config, order_of(space)
        self.columns: tuple[Column, ...] = space.columns
        self.margins = Margins(self.columns)
        self.parts = nn.ModuleList(ColumnPart(config, self.columns, place) for place in range(len(self.columns)))
        self.register_buffer("seed", torch.randint(2**31, (1,)))

    def fit(self, batch: Batch) -> None:
        """Margins first, then every column given those before it."""
        cells_BC = batch["cells"].cpu()
        self.cpu()  # it is fitted there; the search moves it back
        self.margins.fit(cells_BC)
        for number, place in enumerate(self.order):
            before = self.order[:number]
            self.part(place).fit(self.margins, cells_BC, before, int(self.seed) + place)

    def part(self, place: int) -> ColumnPart:
        """What belongs to one column."""
        found = self.parts[place]
        assert isinstance(found, ColumnPart)
        return found

    def law(self, cells_BC: Tensor, known_BC: Tensor, column: int, further: bool = False) -> Law:
        """The law of a column given those before it."""
        before = self.order[: self.order.index(column)]
        return self.part(column).law(self.margins, cells_BC, before, further)

    def forward(self, cells_BC: Tensor, known_BC: Tensor) -> Tensor:
        """log p of each cell given those before it; 0 for a cell that no training row could have."""
        found = torch.zeros_like(cells_BC)
        for place, column in enumerate(self.columns):
            cell_B = cells_BC[:, place]
            log_prob_B = self.law(cells_BC, known_BC, place).log_prob(cell_B)
            found[:, place] = torch.where(possible(column, cell_B), log_prob_B, 0.0)
        return found


class ColumnPart(nn.Module):
    """One column: regression, forest, and the share of each level among all rows.

    codes_CV: for each column before, the place of each of its names in the order of what they predict; the last is
    that of the missing cell.
    """

    fitted = True
    weights: Tensor
    codes: Tensor
    share: Tensor

    def __init__(self, config: ColumnForest, columns: tuple[Column, ...], place: int) -> None:
        super().__init__()
        self.config, self.columns, self.place = config, columns, place
        self.column = columns[place]
        self.forest = Forest(self.column.levels, config.quantiles)
        self.register_buffer("weights", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("codes", torch.zeros(1, 1))
        self.register_buffer("share", torch.zeros(self.column.levels + 1, dtype=torch.float64))

    # -- features -----------------------------------------------------------------------------------------------------

    def design(self, margins: Margins, cells_BC: Tensor, before: tuple[int, ...]) -> Tensor:
        """The inputs of the regression: scores of numbers, one-hot names, and 1 for a missing cell; then a constant."""
        parts = [torch.ones(len(cells_BC), 1, dtype=torch.float64, device=cells_BC.device)]
        for place in before:
            column, cell_B1 = self.columns[place], cells_BC[:, place, None]
            if column.type == "category":
                parts.append((cell_B1 == torch.arange(len(column.names), device=cell_B1.device)).double())
            else:
                parts.append(margins.score(cell_B1, place).nan_to_num(nan=0.0))
            if column.missing:
                parts.append(cell_B1.isnan().double())
        return torch.cat(parts, 1)

    def features(self, margins: Margins, cells_BC: Tensor, before: tuple[int, ...]) -> Tensor:
        """The inputs of the trees, a number for each column before; a missing number is below all others."""
        parts = []
        for number, place in enumerate(before):
            column, cell_B = self.columns[place], cells_BC[:, place]
            if column.type == "category":
                parts.append(self.codes[number, cell_B.nan_to_num(nan=float(len(column.names))).long()])
            else:
                parts.append(margins.score(cell_B, place).nan_to_num(nan=-100.0).float())
        return torch.stack(parts, 1) if parts else cells_BC.new_zeros(len(cells_BC), 1).float()

    def mean(self, margins: Margins, cells_BC: Tensor, before: tuple[int, ...]) -> Tensor:
        """The regression, as scores; 0 without one."""
        if len(self.weights) == 1:
            return self.weights.expand(len(cells_BC))
        return self.design(margins, cells_BC, before) @ self.weights

    def law(self, margins: Margins, cells_BC: Tensor, before: tuple[int, ...], further: bool) -> LeafLaw:
        """The law of the column in each row."""
        x_BF, mean_B = self.features(margins, cells_BC, before), self.mean(margins, cells_BC, before)
        share_L, background = self.share, self.config.background
        return LeafLaw(self.column, self.place, margins, self.forest, x_BF, mean_B, share_L, background, further)

    # -- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, margins: Margins, cells_BC: Tensor, before: tuple[int, ...], seed: int) -> None:
        """Regression on the numbers that are no levels, then a forest."""
        column, cell_B = self.column, cells_BC[:, self.place]
        level_B = level_of(column, cell_B).numpy()
        score_B = margins.score(cell_B, self.place).nan_to_num(nan=0.0).numpy()
        found = Cells(level_B, score_B, level_B == column.levels)
        counts = np.bincount(level_B, minlength=column.levels + 1)
        self.share = torch.from_numpy((counts + 1e-3) / (counts + 1e-3).sum())
        if not column.dense:
            self.share[-1] = 0.0
        residual_B = self.regress(margins, cells_BC, before, found)
        goal = level_B if not column.dense else goals(found, residual_B, column.levels)
        self.codes = torch.from_numpy(self.orders(cells_BC, before, goal))
        x_BF = self.features(margins, cells_BC, before).numpy()
        many = len(x_BF) >= MANY
        trees = self.config.trees if self.config.trees != "auto" else (5 if many else 20)
        leaf = self.config.leaf if self.config.leaf != "auto" else (10 if many else 5)
        grow(self.forest, x_BF, goal, found, residual_B, trees if before else 1, leaf, seed)

    def regress(self, margins: Margins, cells_BC: Tensor, before: tuple[int, ...], found: Cells) -> Array:
        """The residual of each row; the scores where there is nothing to regress."""
        dense_B, score_B = found.dense, found.score
        self.weights = torch.zeros(1, dtype=torch.float64)
        if self.config.linear == "none" or not before or dense_B.sum() < FEW:
            return score_B
        x_BP = self.design(margins, cells_BC, before)[:, 1:].numpy()
        weights_P, constant, left = ridge(x_BP[dense_B], score_B[dense_B])
        self.weights = torch.from_numpy(np.concatenate(([constant], weights_P)))
        residual_B = np.zeros_like(score_B)
        residual_B[dense_B] = left
        return residual_B

    def orders(self, cells_BC: Tensor, before: tuple[int, ...], goal: Array) -> Array:
        """codes_CV: the names of each column before, in the order of the first direction of what they predict."""
        most = max([len(self.columns[place].names) for place in before], default=0) + 1
        codes = np.zeros((max(1, len(before)), most), dtype=np.float32)
        wide = np.eye(int(goal.max()) + 1)[goal] if goal.ndim == 1 else goal
        for number, place in enumerate(before):
            names = len(self.columns[place].names)
            if self.columns[place].type == "category":
                group_B = cells_BC[:, place].nan_to_num(nan=float(names)).long().numpy()
                codes[number, : names + 1] = ranks(group_B, wide, names + 1)
        return codes


def goals(found: Cells, residual_B: Array, levels: int) -> Array:
    """What a tree of numbers aims at: the residual, or the score where most cells are levels; and each level."""
    main = residual_B if found.mostly_dense else found.score
    indicators = [found.level == level for level in range(levels) if (found.level == level).any()]
    return np.stack([main / (main.std() or 1.0), *indicators], 1)


def ranks(group_B: Array, wide_BG: Array, groups: int) -> Array:
    """The place of each group along the first direction in which the means of its rows differ (Coppersmith, 1999)."""
    counts = np.bincount(group_B, minlength=groups)
    sums = np.stack([np.bincount(group_B, weights=column, minlength=groups) for column in wide_BG.T], 1)
    means = (sums + wide_BG.mean(0)) / (counts + 1)[:, None]
    centred = (means - wide_BG.mean(0)) * np.sqrt(counts)[:, None]
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros(groups)
    along = (means - wide_BG.mean(0)) @ directions[0]
    places[np.argsort(along, kind="stable")] = np.arange(groups)
    return places
