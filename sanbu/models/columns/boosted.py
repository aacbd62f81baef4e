"""Boosted trees for each column, given the columns before it: p(row) = prod_c p(x_c | x_<c).

A column is classes (symbols.py): its levels, and quantile bins of its numbers. Trees with vector leaves are grown on
the gradient of -log p of the exact cell at the class scores, p - r with r the posterior of the classes given the cell,
and leaves take Newton's step (Friedman, 2001). The number of rounds is that with the best likelihood on rows held out
of the fit; then all rows are fitted with it. S symbols, F features.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.codecs.columns import Column
from sanbu.config import Positive
from sanbu.layers.forest import Forest
from sanbu.layers.growing import Limits, as_tree, finite, grow, leaf_values
from sanbu.models.columns.columns import ColumnsConfig, Law, order_of, possible
from sanbu.models.columns.forest import ranks
from sanbu.models.columns.margins import Margins
from sanbu.models.columns.symbols import SymbolLaw, log_mass, symbols, weights
from sanbu.space import Batch, Space

HELD_OUT, PATIENCE = 0.2, 8
FEW = 20  # rows below which no rows are held out and no tree is grown


class ColumnBoosted(ColumnsConfig):
    """Boosted trees per column on the columns before it."""

    kind: Literal["column-boosted"] = "column-boosted"
    searches: ClassVar[tuple[str, ...]] = ("closed-form",)
    rounds: Positive = Field(100, description="most trees per column; fewer where held-out rows say so")
    depth: Positive = Field(4, le=10, description="most splits between the root and a leaf")
    leaf: Positive = Field(5, description="least rows in a leaf")
    shrinkage: float = Field(0.15, gt=0, le=1, description="part of each tree that is added")
    penalty: float = Field(1.0, ge=0, description="added to the curvature of a leaf")
    bins: int = Field(16, ge=2, le=256, description="quantile bins of a column of numbers")

    def build(self, space: Space) -> nn.Module:
        return BoostedColumns(self, space)


class BoostedColumns(nn.Module):
    """codes_CCV: of the features of each column, the place of each name in the order of what it predicts."""

    fitted = True
    seed: Tensor
    codes: Tensor

    def __init__(self, config: ColumnBoosted, space: Space) -> None:
        super().__init__()
        self.config, self.order = config, order_of(space)
        self.columns: tuple[Column, ...] = space.columns
        self.margins = Margins(self.columns)
        self.forests = nn.ModuleList(
            Forest(symbols(column, config.bins), config.rounds, 2**config.depth) for column in self.columns
        )
        names = max(len(column.names) for column in self.columns) + 1
        self.register_buffer("codes", torch.zeros(len(self.columns), len(self.columns), names))
        self.register_buffer("seed", torch.randint(2**31, (1,)))

    def forest(self, place: int) -> Forest:
        """The forest of a column."""
        found = self.forests[place]
        assert isinstance(found, Forest)
        return found

    def features(self, cells_BC: Tensor, column: int) -> Tensor:
        """x_BF: a number for each column before; NaN where it is missing."""
        parts = []
        for place in self.order[: self.order.index(column)]:
            cell_B, names = cells_BC[:, place], len(self.columns[place].names)
            if self.columns[place].type == "category":
                parts.append(self.codes[column, place, cell_B.nan_to_num(nan=float(names)).long()])
            else:
                parts.append(self.margins.score(cell_B, place).float())
        return torch.stack(parts, 1) if parts else cells_BC.new_zeros(len(cells_BC), 1).float()

    def law(self, cells_BC: Tensor, known_BC: Tensor, column: int, further: bool = False) -> Law:
        """The law of a column given those before it."""
        scores_BS = self.forest(column)(self.features(cells_BC, column))
        return SymbolLaw(self.columns[column], column, self.margins, scores_BS.double().log_softmax(1))

    def forward(self, cells_BC: Tensor, known_BC: Tensor) -> Tensor:
        """log p of each cell given those before it; 0 for a cell that no training row could have."""
        found = torch.zeros_like(cells_BC)
        for place, column in enumerate(self.columns):
            cell_B = cells_BC[:, place]
            log_prob_B = self.law(cells_BC, known_BC, place).log_prob(cell_B)
            found[:, place] = torch.where(possible(column, cell_B), log_prob_B, 0.0)
        return found

    # -- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, batch: Batch) -> None:
        """Margins first, then every column given those before it."""
        cells_BC = batch["cells"].cpu()
        self.cpu()  # it is fitted there; the search moves it back
        self.margins.fit(cells_BC)
        for column in self.order:
            weight_BS = weights(self.columns[column], column, self.margins, cells_BC[:, column], self.config.bins)
            self.order_names(cells_BC, column, weight_BS)
            x_BF, seed = self.features(cells_BC, column), int(self.seed) + column
            rounds = self.best_rounds(column, x_BF, weight_BS, seed)
            self.boost(column, x_BF, weight_BS, rounds, seed)

    def order_names(self, cells_BC: Tensor, column: int, weight_BS: Tensor) -> None:
        """The order of the names of each category before, by the classes that they predict."""
        wide = (weight_BS / weight_BS.sum(1, keepdim=True).clamp(min=1e-300)).numpy()
        for place in self.order[: self.order.index(column)]:
            names = len(self.columns[place].names)
            if self.columns[place].type == "category":
                group_B = cells_BC[:, place].nan_to_num(nan=float(names)).long().numpy()
                found = torch.from_numpy(ranks(group_B, wide, names + 1))
                self.codes[column, place, : names + 1] = found.float()

    def best_rounds(self, column: int, x_BF: Tensor, weight_BS: Tensor, seed: int) -> int:
        """The number of rounds after which rows held out of the fit have the best likelihood."""
        if len(x_BF) < FEW or self.order[0] == column or weight_BS.shape[1] < 2:
            return 0
        chance = torch.from_numpy(np.random.default_rng(seed).random(len(x_BF)))
        out_B = chance < HELD_OUT
        return self.boost(
            column, x_BF[~out_B], weight_BS[~out_B], self.config.rounds, seed, x_BF[out_B], weight_BS[out_B]
        )

    def boost(
        self, column: int, x_BF: Tensor, weight_BS: Tensor, rounds: int, seed: int,
        other_BF: Tensor | None = None, other_BS: Tensor | None = None,
    ) -> int:  # fmt: skip
        """Grow a forest anew. Returns the best number of rounds on the other rows."""
        forest, config = self.forest(column), self.config
        forest.state.zero_()
        share_S = (weight_BS / weight_BS.sum(1, keepdim=True).clamp(min=1e-300)).sum(0) + 0.1
        forest.base = (share_S / share_S.sum()).log().float()
        scores_BS = forest(x_BF)
        x, limits = finite(x_BF), Limits(config.depth, config.leaf, 2**config.depth)
        best, found = -np.inf, 0
        for number in range(rounds + 1):
            if other_BF is not None and other_BS is not None:
                value = float(log_mass(forest(other_BF).double().log_softmax(1), other_BS).mean())
                best, found = (value, number) if value > best else (best, found)
                if number - found >= PATIENCE:
                    break
            if number < rounds:
                scores_BS = scores_BS + self.add(forest, x, weight_BS, scores_BS, limits, seed + number)
        return found

    def add(
        self, forest: Forest, x: np.ndarray, weight_BS: Tensor, scores_BS: Tensor, limits: Limits, seed: int
    ) -> Tensor:
        """One more tree. Returns what it adds to the scores."""

        def gradient(shift_BS: Tensor) -> Tensor:
            return slope(scores_BS + shift_BS, weight_BS)

        slope_BS = gradient(torch.zeros_like(scores_BS))
        grown = grow(x, -slope_BS.double().numpy(), limits, seed)
        leaf_B = torch.from_numpy(grown.apply(x))
        law_BS = scores_BS.softmax(1)
        leaf_BS = leaf_B[:, None].expand_as(scores_BS)
        count = grown.tree_.node_count
        values = leaf_values(slope_BS, law_BS * (1 - law_BS), leaf_BS, count, self.config.penalty, gradient)
        values = (self.config.shrinkage * values).float()
        forest.write(as_tree(grown, values.numpy()))
        return values[leaf_B]


def slope(scores_BS: Tensor, weight_BS: Tensor) -> Tensor:
    """The gradient of -log sum_s p_s w_s in the scores: p - r."""
    law_BS = scores_BS.double().softmax(1)
    joint_BS = law_BS * weight_BS
    mass_B1 = joint_BS.sum(1, keepdim=True)
    posterior_BS = torch.where(mass_B1 > 0, joint_BS / mass_B1.clamp(min=1e-300), law_BS)
    return (law_BS - posterior_BS).float()
