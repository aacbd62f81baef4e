"""Growing a tree from histograms: numbers are sorted into at most 255 bins once, and each level of the tree needs only
the count of rows and the sum of targets in each bin of each node (Ke and others, 2017, LightGBM).

The criterion is that of growing.py: the gain of a split is the sum over outputs of G_left^2 / n_left + G_right^2 /
n_right - G^2 / n. Missing values have a bin of their own, which goes to the better side. It is torch alone, on the
device of the rows. B rows, F features, C cuts, O outputs, A nodes of a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sanbu.layers.forest import LARGEST, Tree, rounded_down
from sanbu.layers.growing import Limits

CUTS = 254  # of a feature; bins 0 .. CUTS, and one more for missing values
BINS = CUTS + 2
LEAST = 1e-9  # of the squared sums of a node: what a split must gain


def find_cuts(x_BF: Tensor) -> Tensor:
    """cuts_FC: the middles between neighbouring values, or quantiles where there are many; then LARGEST."""
    columns = []
    for column in x_BF.float().cpu().numpy().T:
        finite = column[np.isfinite(column)].astype(np.float64)
        values = np.unique(finite)
        cuts = values[:-1] / 2 + values[1:] / 2
        if len(cuts) > CUTS:
            cuts = np.unique(np.quantile(finite, np.linspace(0, 1, CUTS + 2)[1:-1]))
        columns.append(np.pad(rounded_down(cuts), (0, CUTS - len(cuts)), constant_values=LARGEST))
    return torch.from_numpy(np.stack(columns).astype(np.float32)).to(x_BF.device)


def bins_of(x_BF: Tensor, cuts_FC: Tensor) -> Tensor:
    """The place, int64 [B, F], of each number in a histogram of all features. x is in bin c if it is at most cut c."""
    x_FB = x_BF.float().clamp(max=LARGEST).T.contiguous()
    bin_FB = torch.searchsorted(cuts_FC, x_FB)
    bin_FB[x_FB.isnan()] = BINS - 1
    first_F1 = BINS * torch.arange(len(cuts_FC), device=x_BF.device)[:, None]
    return (bin_FB + first_F1).T.contiguous()


@dataclass
class Growth:
    """A tree on its way: lists by node, and the node of each row."""

    feature: list[int]
    threshold: list[float]
    child: list[tuple[int, int]]
    missing_left: list[bool]
    depth: int = 0

    def leaf(self) -> int:
        """A further leaf; returns its number."""
        number = len(self.feature)
        self.feature.append(0)
        self.threshold.append(0.0)
        self.child.append((number, number))
        self.missing_left.append(False)
        return number

    def tree(self, values_NW: np.ndarray) -> Tree:
        """The arrays, with these values of the nodes."""
        return Tree(
            np.array(self.feature),
            np.array(self.threshold),
            np.array(self.child),
            np.array(self.missing_left),
            values_NW,
            self.depth,
        )


def grow(
    place_BF: Tensor, target_BO: Tensor, cuts_FC: Tensor, limits: Limits, generator: torch.Generator
) -> tuple[Growth, Tensor]:
    """The splits of a tree, level by level, and the leaf of each row. place: of `bins_of`."""
    growth = Growth([], [], [], [])
    growth.leaf()
    node_B = torch.zeros(len(place_BF), dtype=torch.long, device=place_BF.device)
    open_nodes, leaves = [0], 1
    while open_nodes and growth.depth < (limits.depth or 64) and leaves < limits.leaves:
        best = best_splits(place_BF, target_BO, node_B, open_nodes, limits, generator)
        chosen = sorted(best, key=lambda split: -split.gain)[: limits.leaves - leaves]
        if not chosen:
            break
        leaves, open_nodes = leaves + len(chosen), []
        growth.depth += 1
        for split in sorted(chosen, key=lambda split: split.node):
            growth.feature[split.node] = split.feature
            cuts = cuts_FC[split.feature]
            growth.threshold[split.node] = float(cuts[split.cut]) if split.cut < CUTS else LARGEST
            growth.missing_left[split.node] = split.missing_left
            growth.child[split.node] = (growth.leaf(), growth.leaf())
            open_nodes += growth.child[split.node]
        node_B = descend(place_BF, node_B, chosen, growth)
    return growth, node_B


@dataclass(frozen=True)
class Split:
    """Rows of a node whose bin is at most `cut` go left."""

    node: int
    gain: float
    feature: int
    cut: int
    missing_left: bool


def best_splits(
    place_BF: Tensor,
    target_BO: Tensor,
    node_B: Tensor,
    open_nodes: list[int],
    limits: Limits,
    generator: torch.Generator,
) -> list[Split]:
    """The best split of each open node that has one."""
    number = torch.full((int(node_B.max()) + 1,), -1, device=node_B.device)
    number[torch.tensor(open_nodes, device=node_B.device)] = torch.arange(len(open_nodes), device=node_B.device)
    rows = (number[node_B] >= 0).nonzero()[:, 0]
    features, nodes = place_BF.shape[1], len(open_nodes)
    first_B = number[node_B[rows]] * features * BINS
    where = (place_BF[rows] + first_B[:, None]).flatten()
    gains, parent_A = all_gains(where, target_BO[rows], (nodes, features, BINS), limits.rows)
    if not isinstance(limits.features, str) and limits.features < 1:
        chosen = some_features(nodes, features, limits.features, generator).to(gains.device)
        gains = torch.where(chosen[:, :, None, None], gains, -1.0)
    gain_A, best_A = gains.flatten(1).max(1)
    least = LEAST * (parent_A + gain_A)
    found = []
    for place, (gain, best, enough) in enumerate(zip(gain_A.tolist(), best_A.tolist(), least.tolist(), strict=True)):
        if gain > enough:
            rest, side = divmod(best, gains.shape[3])
            feature, cut = divmod(rest, BINS - 1)
            found.append(Split(open_nodes[place], gain, feature, cut, side == 1))
    return found


def all_gains(where: Tensor, target_BO: Tensor, shape: tuple[int, int, int], rows: int) -> tuple[Tensor, Tensor]:
    """The gain of each cut, [A, F, BINS - 1, sides], -1 where a side has too few rows, and G^2 / n of each node.

    where: the place of each number in the histograms, in the order of rows.
    """
    size, features = shape[0] * shape[1] * shape[2], shape[1]
    count = torch.bincount(where, minlength=size).view(shape).double()
    holes = bool(count[..., -1].any())
    left, total = sides(count, holes), count.sum(2, keepdim=True)
    gains, parent_A = torch.zeros_like(left), total.new_zeros(shape[0])
    for target_B in target_BO.double().T:
        weights = target_B[:, None].expand(-1, features).flatten()
        summed = torch.bincount(where, weights, minlength=size).view(shape)
        whole, part = summed.sum(2, keepdim=True), sides(summed, holes)
        gains += part.square() / left.clamp(min=1)
        gains += (whole - part).square() / (total - left).clamp(min=1)
        parent_A += whole[:, 0, 0].square() / total[:, 0, 0].clamp(min=1)
    allowed = (left >= rows) & (total - left >= rows)
    return torch.where(allowed, gains - parent_A[None, :, None, None], -1.0).movedim(0, 3), parent_A


def sides(histogram: Tensor, holes: bool) -> Tensor:
    """Sums at the left of each cut, [sides, A, F, BINS - 1]: without the missing values and, if there are any, with."""
    known = histogram[..., :-1].cumsum(2)
    return torch.stack((known, known + histogram[..., -1:])) if holes else known[None]


def some_features(nodes: int, features: int, part: float, generator: torch.Generator) -> Tensor:
    """A random choice of features for each node, bool [A, F]."""
    count = max(1, int(part * features))
    order = torch.rand(nodes, features, generator=generator).argsort(1)
    return torch.zeros(nodes, features, dtype=torch.bool).scatter_(1, order[:, :count], True)


def descend(place_BF: Tensor, node_B: Tensor, chosen: list[Split], growth: Growth) -> Tensor:
    """The node of each row after the splits of a level."""
    device, count = node_B.device, int(node_B.max()) + 1
    feature, cut, missing_left = torch.zeros(3, count, dtype=torch.long, device=device)
    child = torch.arange(count, device=device)[:, None].repeat(1, 2)
    nodes = torch.tensor([split.node for split in chosen], device=device)
    feature[nodes] = torch.tensor([split.feature for split in chosen], device=device)
    cut[nodes] = torch.tensor([split.cut for split in chosen], device=device)
    missing_left[nodes] = torch.tensor([int(split.missing_left) for split in chosen], device=device)
    child[nodes] = torch.tensor([growth.child[split.node] for split in chosen], device=device)
    feature_B = feature[node_B]
    bin_B = place_BF.gather(1, feature_B[:, None])[:, 0] - BINS * feature_B
    above_B, missing_right_B = bin_B > cut[node_B], missing_left[node_B] == 0
    right_B = torch.where(bin_B == BINS - 1, missing_right_B, above_B)
    return child[node_B].gather(1, right_B.long()[:, None])[:, 0]
