"""Growing one tree: its splits by scikit-learn's regression trees, the values of its leaves from the objective.

A split lowers the squared error of the target, summed over outputs. A leaf's value is Newton's step on the sum of the
loss over its rows, -sum g / (sum h + penalty): the mean residual for squared error. A step that leads to an opposite
and much larger gradient is halved. For losses without curvature (absolute, quantile) the value is the root of sum g,
by bisection: a median or a quantile of the residuals (Friedman, 2001). B rows, O outputs, L nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sanbu.layers.forest import Tree

HALVINGS, DOUBLINGS, CUTS = 10, 40, 30


@dataclass(frozen=True)
class Limits:
    """The size of a tree. depth: None is any. rows: least in a leaf. features: fraction tried per split, or "sqrt"."""

    depth: int | None
    rows: int
    leaves: int
    features: float | str = 1.0


def grow(x: np.ndarray, target: np.ndarray, limits: Limits, seed: int, weight: np.ndarray | None = None) -> Any:
    """A fitted DecisionTreeRegressor. x: float32 [B, F], NaN is missing. target: [B] or [B, O]."""
    from sklearn.tree import DecisionTreeRegressor

    bounded = limits.depth is not None and 2**limits.depth <= limits.leaves
    tree = DecisionTreeRegressor(
        max_depth=limits.depth,
        min_samples_leaf=limits.rows,
        max_leaf_nodes=None if bounded else limits.leaves,
        max_features=limits.features,
        random_state=seed,
    )
    return tree.fit(x, target, sample_weight=weight)


def finite(x_BF: Tensor) -> np.ndarray:
    """Inputs for scikit-learn: infinite values become the largest, NaN stays."""
    return torch.nan_to_num(x_BF.float(), nan=float("nan")).cpu().numpy()


def as_tree(grown: Any, values_LW: np.ndarray) -> Tree:
    """A tree of scikit-learn as arrays, with these values of its nodes."""
    tree = grown.tree_
    own = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    child = np.stack([np.where(leaf, own, side) for side in (tree.children_left, tree.children_right)], 1)
    missing = np.asarray(tree.missing_go_to_left).astype(bool)
    return Tree(tree.feature, tree.threshold, child, missing, values_LW, int(tree.max_depth))


# -- the values of leaves ---------------------------------------------------------------------------------------------

GradientAt = Callable[[Tensor], Tensor]  # shift_BO of the outputs -> gradient_BO


def sums(value_BO: Tensor, leaf_BO: Tensor, count: int) -> Tensor:
    """The sum of each output over the rows of each leaf, [L, O], in float64."""
    total_LO = torch.zeros(count, value_BO.shape[1], dtype=torch.float64, device=value_BO.device)
    return total_LO.scatter_add_(0, leaf_BO, value_BO.double())


def leaf_values(
    gradient_BO: Tensor,
    curvature_BO: Tensor,
    leaf_BO: Tensor,
    count: int,
    penalty: float,
    gradient: GradientAt,
    used_B1: Tensor | None = None,
) -> Tensor:
    """The value of each leaf, [L, O], float64. leaf_BO: of each row, for each output. used: 1 for rows that count."""
    chosen = 1.0 if used_B1 is None else used_B1.to(gradient_BO)
    slope_LO = sums(chosen * gradient_BO, leaf_BO, count)

    def slope_at(value_LO: Tensor) -> Tensor:
        shift_BO = value_LO.gather(0, leaf_BO).to(gradient_BO.dtype)
        return sums(chosen * gradient(shift_BO), leaf_BO, count)

    if not bool(curvature_BO.any()):
        return root(slope_LO, slope_at)
    bend_LO = sums(chosen * curvature_BO, leaf_BO, count) + penalty
    value_LO = torch.where(bend_LO > 0, -slope_LO / bend_LO, 0.0)
    allowed_LO = slope_LO.abs() + sums((chosen * gradient_BO).abs(), leaf_BO, count)  # other outputs move too
    for _ in range(HALVINGS):
        found_LO = slope_at(value_LO)
        over = (found_LO * slope_LO < 0) & (found_LO.abs() > allowed_LO)
        if not bool(over.any()):
            break
        value_LO = torch.where(over, value_LO / 2, value_LO)
    return value_LO


def root(slope_LO: Tensor, slope_at: GradientAt) -> Tensor:
    """Where the summed gradient of each leaf changes its sign: doubling, then bisection."""
    direction_LO = -slope_LO.sign()
    low_LO, high_LO = torch.zeros_like(slope_LO), direction_LO.clone()
    inside_LO = direction_LO == 0
    for _ in range(DOUBLINGS):
        inside_LO = inside_LO | (slope_at(high_LO) * direction_LO >= 0)
        if bool(inside_LO.all()):
            break
        low_LO = torch.where(inside_LO, low_LO, high_LO)
        high_LO = torch.where(inside_LO, high_LO, 2 * high_LO)
    for _ in range(CUTS):
        middle_LO = (low_LO + high_LO) / 2
        beyond = slope_at(middle_LO) * direction_LO >= 0
        low_LO = torch.where(beyond, low_LO, middle_LO)
        high_LO = torch.where(beyond, middle_LO, high_LO)
    return (low_LO + high_LO) / 2
