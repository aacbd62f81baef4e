"""One forest for one column: trees grown by scikit-learn, kept as arrays, with the empirical law of each leaf.

The law of a leaf has a probability for each level of the column (spikes, names, missing) and one for the density, and
Q + 1 quantiles of the residuals of its rows, within the range of their scores: fixed sizes, and no row of the data.
The law of a further row is wider than that of the n rows that were seen: by (n + 1) / (n - 1), which for 5 to 20 normal
numbers is within a few percent what Student's t says for intervals of 80 % and 90 %.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray
Laws = tuple[Array, Array, Array, Array]
PURE = 3


@dataclass(frozen=True)
class Cells:
    """The cells of one column: level_B, and score_B of numbers. dense_B: which are numbers of the density."""

    level: Array
    score: Array
    dense: Array

    @property
    def mostly_dense(self) -> bool:
        """Whether at least half of the cells are numbers of the density."""
        return bool(2 * self.dense.sum() >= len(self.dense))


class Forest(nn.Module):
    """T trees of at most N nodes. law_TNL: of the levels and of the density; quantiles_TNQ; range_TN2: of scores.

    rows_TN: how many numbers of the density each leaf has.
    """

    fitted = True
    feature: Tensor
    threshold: Tensor
    sides: Tensor
    law: Tensor
    quantiles: Tensor
    range: Tensor
    rows: Tensor

    def __init__(self, levels: int, quantiles: int) -> None:
        super().__init__()
        self.levels, self.parts = levels, quantiles
        self.register_buffer("feature", torch.full((1, 1), -1, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(1, 1))
        self.register_buffer("sides", torch.zeros(1, 1, 2, dtype=torch.int32))
        self.register_buffer("law", torch.full((1, 1, levels + 1), 1 / (levels + 1)))
        self.register_buffer("quantiles", torch.zeros(1, 1, quantiles + 1))
        self.register_buffer("range", torch.zeros(1, 1, 2))
        self.register_buffer("rows", torch.zeros(1, 1))

    def leaf(self, x_BF: Tensor, tree: Tensor) -> Tensor:
        """The leaf of each row in the tree of its number; both [B]."""
        rows = torch.arange(len(x_BF), device=x_BF.device)
        node = torch.zeros_like(tree)
        for _ in range(self.feature.shape[1]):  # no path is longer than the number of nodes
            feature = self.feature[tree, node].long()
            inner = feature >= 0
            if not bool(inner.any()):
                break
            right = x_BF[rows, feature.clamp(min=0)] > self.threshold[tree, node]
            node = torch.where(inner, self.sides[tree, node, right.long()].long(), node)
        return node

    def density(self, tree: Tensor, leaf: Tensor, further: bool) -> tuple[Tensor, Tensor]:
        """quantiles_BQ and range_B2 of leaves, float64. further: widened to those of a further row."""
        quantiles_BQ, range_B2 = self.quantiles[tree, leaf].double(), self.range[tree, leaf].double()
        if not further:
            return quantiles_BQ, range_B2
        rows_B1 = self.rows[tree, leaf].double()[:, None]
        factor_B1 = torch.where(rows_B1 > 1, (rows_B1 + 1) / (rows_B1 - 1).clamp(min=1), 1.0)
        median_B1 = quantiles_BQ[:, [self.parts // 2]]
        middle_B1 = range_B2.mean(1, keepdim=True)
        wide_BQ = median_B1 + factor_B1 * (quantiles_BQ - median_B1)
        return wide_BQ, middle_B1 + factor_B1 * (range_B2 - middle_B1)

    def set(self, trees: list[Any], laws: list[Laws]) -> None:
        """Take up trees of scikit-learn and the laws of their nodes."""
        nodes = max(tree.node_count for tree in trees)

        def padded(arrays: list[Array], fill: float) -> Array:
            shape = (len(arrays), nodes, *arrays[0].shape[1:])
            made = np.full(shape, fill, dtype=arrays[0].dtype)
            for place, array in enumerate(arrays):
                made[place, : len(array)] = array
            return made

        self.feature = torch.from_numpy(padded([tree.feature.astype(np.int32) for tree in trees], -1))
        self.threshold = torch.from_numpy(padded([below(tree.threshold) for tree in trees], 0.0))
        pairs = [np.stack((tree.children_left, tree.children_right), 1).astype(np.int32) for tree in trees]
        self.sides = torch.from_numpy(padded(pairs, 0)).clamp(min=0)
        self.law, self.quantiles, self.range, self.rows = (
            torch.from_numpy(padded(list(arrays), 0.0)) for arrays in zip(*laws, strict=True)
        )


def below(threshold: Array) -> Array:
    """The largest float32 that is not above each float64: x <= t is then the same for every float32 x."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def grow(
    forest: Forest, x_BF: Array, goal: Array, found: Cells, residual_B: Array, trees: int, leaf: int, seed: int
) -> None:
    """Grow trees on bootstraps of the rows towards a goal (labels, or numbers [B, G]); fill leaves with all rows.

    leaf: rows per leaf; where most cells are levels a leaf may be pure with as few as PURE.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    least = leaf if found.mostly_dense else min(leaf, PURE)
    kind = DecisionTreeClassifier if goal.ndim == 1 else DecisionTreeRegressor
    draw = np.random.default_rng(seed)
    grown, laws = [], []
    for _ in range(trees):
        rows = draw.integers(0, len(x_BF), len(x_BF)) if trees > 1 else np.arange(len(x_BF))
        tree = kind(min_samples_leaf=least, min_samples_split=2 * leaf, random_state=int(draw.integers(2**31)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree.fit(x_BF[rows], goal[rows])
        grown.append(tree.tree_)
        laws.append(leaf_laws(tree.tree_, tree.apply(x_BF), found, residual_B, forest))
    forest.set(grown, laws)


def leaf_laws(tree: Any, leaf_B: Array, found: Cells, residual_B: Array, forest: Forest) -> Laws:
    """law_NL, quantiles_NQ, range_N2 and rows_N of each node; of a node that no row reaches, those of all rows."""
    law = np.zeros((tree.node_count, forest.levels + 1))
    np.add.at(law, (leaf_B, found.level), 1.0)
    empty = law.sum(1) == 0
    law[empty] = np.bincount(found.level, minlength=forest.levels + 1)
    law /= law.sum(1, keepdims=True)
    quantiles = np.zeros((tree.node_count, forest.parts + 1), dtype=np.float32)
    ranges = np.zeros((tree.node_count, 2), dtype=np.float32)
    dense = np.flatnonzero(found.dense)
    counts = np.full(tree.node_count, len(dense), dtype=np.float32)
    if len(dense):
        quantiles[:] = spread(np.sort(residual_B[dense]), forest.parts)
        ranges[:] = spread(np.sort(found.score[dense]), 1)
        order = dense[np.argsort(leaf_B[dense], kind="stable")]
        leaves, starts = np.unique(leaf_B[order], return_index=True)
        for node, rows in zip(leaves, np.split(order, starts[1:]), strict=True):
            quantiles[node] = spread(np.sort(residual_B[rows]), forest.parts)
            ranges[node] = spread(np.sort(found.score[rows]), 1)
            counts[node] = len(rows)
    return law.astype(np.float32), quantiles, ranges, counts


def spread(values_N: Array, parts: int) -> Array:
    """Quantiles at `shares(parts)` of sorted values, each of which is spread half-way to its neighbours."""
    if len(values_N) == 1:
        return np.full(parts + 1, values_N[0])
    middles = (values_N[1:] + values_N[:-1]) / 2
    ends = 2 * values_N[[0, -1]] - middles[[0, -1]]
    edges = np.concatenate((ends[:1], middles, ends[1:]))
    return np.interp(shares(parts), np.linspace(0, 1, len(edges)), edges)


def shares(parts: int) -> Array:
    """The masses below quantiles 0 .. parts, closer to each other in the tails: (1 - cos(pi k / parts)) / 2."""
    return (1 - np.cos(np.pi * np.arange(parts + 1) / parts)) / 2
