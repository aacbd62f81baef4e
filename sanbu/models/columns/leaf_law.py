"""The law of a forest: the mean over its trees of the laws of the leaves, with a share of the column's own law.

A leaf gives each level a probability, and the density the rest: quantiles of the residual, moved by the regression, are
scores, which the margin turns into values. The law is cut at the range of the scores of the leaf's rows, so that no
score moves to where its leaf has none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbu.codecs.columns import Column
from sanbu.models.columns.columns import level_of, on_grid, per_width
from sanbu.models.columns.margins import Margins
from sanbu.models.columns.trees import Forest, shares

FEW = 0.01  # of the mass of a leaf


class LeafLaw:
    """B rows. x_BF: the inputs of the trees; mean_B: the regression; share_L: of each level, and of the density.

    further: whether it is the law of a further row, or that of the rows that were seen.
    """

    def __init__(
        self, column: Column, place: int, margins: Margins, forest: Forest, x_BF: Tensor, mean_B: Tensor,
        share_L: Tensor, background: float, further: bool = False,
    ) -> None:  # fmt: skip
        self.column, self.place, self.margins, self.forest = column, place, margins, forest
        self.x, self.mean, self.share, self.background = x_BF, mean_B, share_L, background
        self.further = further

    def draw(self, uniform_B: Tensor, missing: bool = True) -> Tensor:
        """A tree, its leaf, and then a level or a number; one uniform gives all three."""
        rest_B = uniform_B / self.background
        own_B = rest_B < 1
        part_B = (uniform_B - self.background) / (1 - self.background) * len(self.forest.feature)
        tree_B = part_B.long().clamp(0, len(self.forest.feature) - 1)
        rest_B = torch.where(own_B, rest_B, (part_B - tree_B).clamp(0, 1 - 1e-12))
        leaf_B = self.forest.leaf(self.x, tree_B)
        law_BL = self.forest.law[tree_B, leaf_B].double()
        law_BL = torch.where(own_B[:, None], self.share, law_BL)
        if self.column.missing and not missing:
            law_BL = present(law_BL, self.share, self.column.levels - 1)
        level_B, within_B = pick(law_BL, rest_B)
        quantiles_BQ, range_B2 = self.forest.density(tree_B, leaf_B, self.further)
        low_B, high_B = self.limits(quantiles_BQ, range_B2, self.mean)
        score_B = self.mean + at(quantiles_BQ, low_B + within_B * (high_B - low_B))
        score_B = torch.where(own_B, torch.special.ndtri(within_B), score_B)
        return self.cells(level_B, score_B)

    def limits(self, quantiles_BQ: Tensor, range_B2: Tensor, mean_B: Tensor) -> tuple[Tensor, Tensor]:
        """The shares of a moved law between which its scores are in the range of its leaf; all, if hardly any are."""
        low_B, high_B = (share_below(quantiles_BQ, range_B2[:, end] - mean_B) for end in (0, 1))
        few_B = high_B - low_B < FEW
        return torch.where(few_B, 0.0, low_B), torch.where(few_B, 1.0, high_B)

    def cells(self, level_B: Tensor, score_B: Tensor) -> Tensor:
        """The cell of each level, or the number of a score."""
        column = self.column
        values = score_B.new_tensor([*column.values, *([float("nan")] if column.missing else []), 0.0])
        found = values[level_B]
        if not column.dense:
            return found
        number = on_grid(column, self.margins.value(score_B, self.place))
        return torch.where(level_B == column.levels, number, found)

    def log_prob(self, cell_B: Tensor) -> Tensor:
        """The log of the mean over trees."""
        trees = len(self.forest.feature)
        tree_M = torch.arange(trees, device=cell_B.device).repeat_interleave(len(cell_B))
        leaf_M = self.forest.leaf(self.x.repeat(trees, 1), tree_M)
        law_TBL = self.forest.law[tree_M, leaf_M].double().view(trees, len(cell_B), -1)
        law_TBL = law_TBL / law_TBL.sum(2, keepdim=True)
        level_B = level_of(self.column, cell_B)
        leaf_BL = (1 - self.background) * law_TBL.mean(0) + self.background * self.share
        mass_B = leaf_BL.gather(1, level_B[:, None])[:, 0]
        mass_B = torch.where(level_B < self.column.levels, mass_B, 0.0)
        if not self.column.dense:
            return mass_B.log()
        low_B, high_B = self.margins.edges(cell_B, self.place)
        quantiles_MQ, range_M2 = self.forest.density(tree_M, leaf_M, self.further)
        shift_M = self.mean.repeat(trees)
        least_M, most_M = self.limits(quantiles_MQ, range_M2, shift_M)
        below = [share_below(quantiles_MQ, edge.repeat(trees) - shift_M) for edge in (low_B, high_B)]
        low_M, high_M = (torch.minimum(torch.maximum(share, least_M), most_M) for share in below)
        inside_TB = ((high_M - low_M) / (most_M - least_M)).view(trees, -1)
        own_B = torch.special.ndtr(high_B) - torch.special.ndtr(low_B)
        dense_B = (1 - self.background) * (law_TBL[:, :, -1] * inside_TB).mean(0)
        dense_B = dense_B + self.background * self.share[-1] * own_B
        number_B = (mass_B + dense_B) / per_width(self.column)
        return torch.where(cell_B.isnan(), mass_B, number_B).log()


def present(law_BL: Tensor, share_L: Tensor, missing: int) -> Tensor:
    """The law without its missing cell; where nothing else is left, that of the column."""
    there_L = torch.arange(len(share_L), device=share_L.device) != missing
    law_BL = law_BL * there_L
    return torch.where(law_BL.sum(1, keepdim=True) > 0, law_BL, share_L * there_L)


def pick(law_BL: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """The level on which each uniform falls, and where in it, in (0, 1)."""
    upper_BL = law_BL.cumsum(1)
    point_B1 = uniform_B[:, None] * upper_BL[:, -1:]
    level_B = (upper_BL <= point_B1).sum(1).clamp(max=law_BL.shape[1] - 1)
    chance_B = law_BL.gather(1, level_B[:, None])[:, 0]
    before_B = upper_BL.gather(1, level_B[:, None])[:, 0] - chance_B
    within_B = (uniform_B * upper_BL[:, -1] - before_B) / chance_B.clamp(min=1e-300)
    return level_B, within_B.clamp(1e-12, 1 - 1e-12)


def at(quantiles_BQ: Tensor, share_B: Tensor) -> Tensor:
    """The value at a share of the mass, linear between quantiles."""
    mass_Q = torch.from_numpy(shares(quantiles_BQ.shape[1] - 1)).to(share_B)
    place_B = (torch.searchsorted(mass_Q, share_B.contiguous(), right=True) - 1).clamp(0, len(mass_Q) - 2)
    low_B, high_B = ends(quantiles_BQ, place_B)
    within_B = (share_B - mass_Q[place_B]) / (mass_Q[place_B + 1] - mass_Q[place_B])
    return low_B + within_B * (high_B - low_B)


def ends(quantiles_BQ: Tensor, place_B: Tensor) -> tuple[Tensor, Tensor]:
    """The quantiles before and after."""
    place_B1 = place_B[:, None]
    return quantiles_BQ.gather(1, place_B1)[:, 0], quantiles_BQ.gather(1, place_B1 + 1)[:, 0]


def share_below(quantiles_BQ: Tensor, value_B: Tensor) -> Tensor:
    """The share of the mass at or below a value, linear between quantiles."""
    mass_Q = torch.from_numpy(shares(quantiles_BQ.shape[1] - 1)).to(value_B)
    right_B = torch.searchsorted(quantiles_BQ.contiguous(), value_B[:, None], right=True)[:, 0]
    place_B = (right_B - 1).clamp(0, len(mass_Q) - 2)
    low_B, high_B = ends(quantiles_BQ, place_B)
    within_B = ((value_B - low_B) / (high_B - low_B).clamp(min=1e-300)).clamp(0, 1)
    share_B = mass_Q[place_B] + within_B * (mass_Q[place_B + 1] - mass_Q[place_B])
    return torch.where(right_B == 0, 0.0, torch.where(right_B == len(mass_Q), 1.0, share_B))
