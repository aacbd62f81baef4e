"""The Gaussian copula with empirical margins (Sklar, 1959; Song, 2000): z ~ N(0, R), each column a function of its z.

Every cell is an interval of scores: a number as much as the cell of the grid around it, a name as much as its share, a
missing cell the last. R is the correlation of the scores of the training rows, each drawn within its interval. When
cells are given, their scores are drawn within their intervals too, and the others are conditionally normal. The chain
rule in `forward` takes the middle of each interval instead.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sanbu.codecs.columns import Column
from sanbu.models.columns.columns import ColumnsConfig, on_grid, order_of, per_width, possible
from sanbu.models.columns.margins import Margins
from sanbu.noise import Noise
from sanbu.space import Batch, Space

KNOTS = 513
SMALL = 1e-9  # added to the diagonal of R, so that it can be inverted


class Copula(ColumnsConfig):
    """A Gaussian copula with empirical margins."""

    kind: Literal["copula"] = "copula"
    searches: ClassVar[tuple[str, ...]] = ("closed-form",)

    def build(self, space: Space) -> nn.Module:
        return GaussianCopula(space)


class GaussianCopula(nn.Module):
    """correlation_CC; shares_CV: the share of each name of a column, and last that of the missing cell."""

    fitted = True
    correlation: Tensor
    shares: Tensor
    seed: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.columns: tuple[Column, ...] = space.columns
        self.order = order_of(space)
        self.margins = Margins(self.columns, KNOTS, spikes=True)
        names = max(len(column.names) for column in self.columns)
        self.register_buffer("correlation", torch.eye(len(self.columns), dtype=torch.float64))
        self.register_buffer("shares", torch.zeros(len(self.columns), names + 1, dtype=torch.float64))
        self.register_buffer("seed", torch.randint(2**31, (1,)))

    def fit(self, batch: Batch) -> None:
        """Margins and shares, then the correlation of scores."""
        cells_BC = batch["cells"].cpu()
        self.cpu()  # it is fitted there; the search moves it back
        self.margins.fit(cells_BC)
        for place, column in enumerate(self.columns):
            names, cell_B = len(column.names), cells_BC[:, place]
            count_V = torch.bincount(cell_B[~cell_B.isnan()].long(), minlength=names) if names else torch.zeros(0)
            self.shares[place, :names] = count_V / len(cell_B)
            self.shares[place, -1] = cell_B.isnan().double().mean()
        uniform_BC = Noise(int(self.seed), "ties").uniform(*cells_BC.shape).double()
        score_BC = self.scores(cells_BC, uniform_BC)
        correlation = torch.corrcoef(score_BC.T).nan_to_num(nan=0.0)
        self.correlation = correlation.fill_diagonal_(1.0)

    # -- cells and scores ---------------------------------------------------------------------------------------------

    def interval(self, cell_B: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """Where each cell lies in (0, 1): from, to."""
        column, share_V = self.columns[place], self.shares[place]
        there = 1 - share_V[-1]
        if column.type == "category":
            upper_V = share_V[:-1].cumsum(0)
            code_B = cell_B.nan_to_num(nan=0.0).long()
            low_B, high_B = upper_V[code_B] - share_V[code_B], upper_V[code_B]
        else:
            edges = self.margins.edges(cell_B, place)
            low_B, high_B = (there * torch.special.ndtr(edge) for edge in edges)
        gone_B = cell_B.isnan()
        return torch.where(gone_B, there, low_B), torch.where(gone_B, 1.0, high_B)

    def scores(self, cells_BC: Tensor, uniform_BC: Tensor) -> Tensor:
        """A score of each cell, at a share of its interval."""
        found = []
        for place in range(len(self.columns)):
            low_B, high_B = self.interval(cells_BC[:, place], place)
            found.append(low_B + uniform_BC[:, place] * (high_B - low_B))
        return torch.special.ndtri(torch.stack(found, 1).clamp(1e-15, 1 - 1e-15))

    def cells(self, score_BC: Tensor, missing: bool = True) -> Tensor:
        """The cell of each score. missing: whether it may be missing."""
        chance_BC = torch.special.ndtr(score_BC)
        found = []
        for place, column in enumerate(self.columns):
            chance_B, there = chance_BC[:, place], 1 - self.shares[place, -1]
            if not missing and there > 0:
                chance_B = chance_B * there * (1 - 1e-12)
            if column.type == "category":
                upper_V = self.shares[place, :-1].cumsum(0)[: max(1, len(column.names))]
                cell_B = (upper_V <= chance_B[:, None]).sum(1).clamp(max=len(upper_V) - 1).double()
            else:
                within_B = (chance_B / there.clamp(min=1e-12)).clamp(1e-15, 1 - 1e-15)
                cell_B = on_grid(column, self.margins.value(torch.special.ndtri(within_B), place))
            found.append(torch.where(chance_B >= there, torch.nan, cell_B) if column.missing else cell_B)
        return torch.stack(found, 1)

    # -- conditionals -------------------------------------------------------------------------------------------------

    def complete(self, cells_BC: Tensor, known_BC: Tensor, uniform_BC: Tensor, missing: bool = True) -> Tensor:
        """All cells that are not known, jointly normal given the known ones; the known ones as they are."""
        columns = zip(self.columns, cells_BC.T, strict=True)
        usable_BC = known_BC & torch.stack([possible(column, cell_B) for column, cell_B in columns], 1)
        score_BC = self.scores(cells_BC, uniform_BC)
        fresh_BC = torch.special.ndtri(uniform_BC)
        patterns, pattern_B = usable_BC.unique(dim=0, return_inverse=True)
        for number, known_C in enumerate(patterns):
            rows = (pattern_B == number).nonzero()[:, 0]
            score_BC[rows] = self.given(score_BC[rows], fresh_BC[rows], known_C)
        return torch.where(known_BC, cells_BC, self.cells(score_BC, missing))

    def given(self, score_BC: Tensor, fresh_BC: Tensor, known_C: Tensor) -> Tensor:
        """Scores with those of the unknown columns drawn given the others."""
        weights_MK, covariance_MM = self.conditional(known_C)
        values, vectors = torch.linalg.eigh(covariance_MM)
        root_MM = vectors * values.clamp(min=0).sqrt()
        mean_BM = score_BC[:, known_C] @ weights_MK.T
        result = score_BC.clone()
        result[:, ~known_C] = mean_BM + fresh_BC[:, ~known_C] @ root_MM.T
        return result

    def conditional(self, known_C: Tensor) -> tuple[Tensor, Tensor]:
        """The regression of the unknown scores on the known ones, and the covariance of what is left (Schur)."""
        whole = self.correlation + SMALL * torch.eye(len(known_C), dtype=torch.float64, device=known_C.device)
        inside = whole[known_C][:, known_C]
        across = whole[~known_C][:, known_C]
        weights_MK = torch.linalg.solve(inside, across.T).T
        return weights_MK, whole[~known_C][:, ~known_C] - weights_MK @ across.T

    def forward(self, cells_BC: Tensor, known_BC: Tensor) -> Tensor:
        """log p of each cell given those before it, at the middle of their intervals."""
        middle_BC = self.scores(cells_BC, torch.full_like(cells_BC, 0.5))
        found = torch.zeros_like(cells_BC)
        before_C = torch.zeros(len(self.columns), dtype=torch.bool, device=cells_BC.device)
        for place in self.order:
            column, cell_B = self.columns[place], cells_BC[:, place]
            weights_MK, covariance_MM = self.conditional(before_C)
            own = int((~before_C)[:place].sum())
            mean_B = middle_BC[:, before_C] @ weights_MK[own]
            spread = covariance_MM[own, own].clamp(min=1e-12).sqrt()
            edges = [torch.special.ndtri(edge.clamp(0, 1)) for edge in self.interval(cell_B, place)]
            mass_B = between(*((edge - mean_B) / spread for edge in edges))
            width = per_width(column)
            log_prob_B = (mass_B / torch.where(cell_B.isnan(), 1.0, width)).clamp(min=1e-300).log()
            found[:, place] = torch.where(possible(column, cell_B), log_prob_B, 0.0)
            before_C[place] = True
        return found


def between(low: Tensor, high: Tensor) -> Tensor:
    """The mass of a standard normal between two scores, exact in both tails."""
    flip = low > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    return torch.special.ndtr(high) - torch.special.ndtr(low)
