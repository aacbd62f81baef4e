"""The law of a cell as probabilities of symbols: the levels of its column, then K bins of equal share of its margin.

A cell of the grid may lie in several bins, and a spike may also be a number of the density. Each symbol gives the cell
a weight: 1 for its own level, and for a bin the part of the bin that the cell covers. The mass of the cell is
sum_s p_s w_s. The weights of the cells of a grid sum to 1 for each symbol within the range of the margin, so there a
law sums to 1; a held-out number beyond that range has the mass of a tail that goes on. B rows, S symbols.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbu.codecs.columns import Column
from sanbu.models.columns.columns import level_of, on_grid, per_width
from sanbu.models.columns.leaf_law import pick
from sanbu.models.columns.margins import Margins

LEAST = 1e-300  # of a mass, so that its logarithm is finite


def symbols(column: Column, bins: int) -> int:
    """The number of symbols of a column."""
    return column.levels + (bins if column.dense else 0)


def weights(column: Column, place: int, margins: Margins, cell_B: Tensor, bins: int) -> Tensor:
    """weight_BS of each symbol for each cell, float64."""
    level_B = level_of(column, cell_B)
    weight_BL = torch.nn.functional.one_hot(level_B, column.levels + 1)[:, : column.levels].double()
    if not column.dense:
        return weight_BL
    gone_B = cell_B.isnan()
    edges = margins.edges(cell_B.nan_to_num(nan=column.low), place)
    ends = [torch.special.ndtr(edge)[:, None] for edge in edges]
    edge_K = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=cell_B.device)
    low_BK = torch.maximum(ends[0], edge_K[:-1])
    high_BK = torch.minimum(ends[1], edge_K[1:])
    knots = margins.knots[place]
    beyond_B = (cell_B < knots[0]) | (cell_B > knots[-1])
    apart_B = beyond_B & (level_B < column.levels)  # a spike beyond the density
    weight_BK = bins * (high_BK - low_BK).clamp(min=0)
    weight_BK = weight_BK.masked_fill((gone_B | apart_B)[:, None], 0.0)
    return torch.cat((weight_BL, weight_BK), 1)


def log_mass(log_prob_BS: Tensor, weight_BS: Tensor) -> Tensor:
    """log sum_s p_s w_s, at least that of the least mass."""
    return (log_prob_BS.double().exp() * weight_BS).sum(1).clamp(min=LEAST).log()


class SymbolLaw:
    """The law of one column in B rows from log-probabilities of its symbols."""

    def __init__(self, column: Column, place: int, margins: Margins, log_prob_BS: Tensor) -> None:
        self.column, self.place, self.margins = column, place, margins
        self.log_law, self.bins = log_prob_BS.double(), log_prob_BS.shape[1] - column.levels

    def log_prob(self, cell_B: Tensor) -> Tensor:
        """The log-probability of cells; a density for a continuous column."""
        weight_BS = weights(self.column, self.place, self.margins, cell_B, self.bins)
        width_B = torch.where(cell_B.isnan(), 1.0, cell_B.new_tensor(per_width(self.column)))
        return log_mass(self.log_law, weight_BS) - width_B.log()

    def draw(self, uniform_B: Tensor, missing: bool = True) -> Tensor:
        """A symbol for each uniform number, and within a bin a number of the margin."""
        column, law_BS = self.column, self.log_law.exp()
        if column.missing and not missing and law_BS.shape[1] > 1:
            law_BS = law_BS.clone()
            law_BS[:, column.levels - 1] = 0.0
        symbol_B, within_B = pick(law_BS, uniform_B)
        values = [*column.values, *([float("nan")] if column.missing else []), 0.0]
        level_B = uniform_B.new_tensor(values)[symbol_B.clamp(max=column.levels)]
        if not column.dense:
            return level_B
        share_B = ((symbol_B - column.levels + within_B) / self.bins).clamp(1e-15, 1 - 1e-15)
        number_B = on_grid(column, self.margins.value(torch.special.ndtri(share_B), self.place))
        return torch.where(symbol_B >= column.levels, number_B, level_B)
