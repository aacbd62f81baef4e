"""Bagging: trees that are each fitted alone, on rows drawn with replacement, are averaged (Breiman, 1996, 2001).

A tree fitted alone starts from the output 0, where one step of Newton's method solves the objectives taken here:

    squared error     t = 0 - g / h = y                              a leaf is the mean of y
    cross-entropy     t = 1/K + p (1 - p) (0 - g / h) = [y = k]      a leaf is the frequency of each class, p = 1/K

and h is the weight of the row. For classes the forest's outputs are the logarithms of the mean law.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import Positive, SanbuError
from sanbu.layers.forest import LAWS, MEAN, Forest
from sanbu.layers.forest_memory import Memory
from sanbu.layers.growing import Limits, as_tree, finite, grow
from sanbu.optimizers.boosting import check_room
from sanbu.optimizers.outputs import Look, curvature_at, forest_of, gradient_at, replaced
from sanbu.optimizers.search import Metrics, OptimizerConfig, Problem, Search


class Bagging(OptimizerConfig):
    """A forest of trees that are each fitted alone on rows drawn with replacement, for model=trees."""

    kind: Literal["bagging"] = "bagging"
    trees: Positive = Field(1, description="trees per step")
    depth: Positive | None = Field(None, le=64, description="most splits between the root and a leaf; none: any")
    leaf: Positive = Field(1, description="least rows in a leaf")
    features: Annotated[float, Field(gt=0, le=1)] | Literal["sqrt"] = Field(
        "sqrt", description="part of the features that each split may use"
    )

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        forest = forest_of(models, self.kind)
        check_room(forest, steps, self.trees)
        return Bagger(self, forest)


class Bagger:
    """Grows a forest; all that it knows is in the forest."""

    def __init__(self, config: Bagging, forest: Forest) -> None:
        self.config, self.forest = config, forest
        forest.memory = Memory()
        self.limits = Limits(config.depth, config.leaf, forest.most_leaves, config.features)

    def step(self, problem: Problem) -> Metrics:
        """Grow the trees of a round. Reports the loss before the first of them."""
        _, metrics = gradient_at(problem, self.forest)
        zero = replaced(torch.zeros(self.forest.outputs))
        curvature_BO = curvature_at(problem, self.forest, zero)
        look, _ = gradient_at(problem, self.forest, zero)
        target_BO, weight_B, laws = targets(look, curvature_BO)
        self.forest.state[2] = LAWS if laws else MEAN
        x, target = finite(look.x), target_BO.cpu().numpy()
        for _ in range(self.config.trees):
            draws = problem.noise.together().integers(len(x), len(x))
            counts = torch.bincount(draws, minlength=len(x)).cpu().numpy()
            self._grow(x, target, weight_B.cpu().numpy() * counts, problem)
        return metrics | {"trees": float(self.forest.grown)}

    def _grow(self, x: np.ndarray, target: np.ndarray, weight: np.ndarray, problem: Problem) -> None:
        """Add one tree, or one for each output, on the rows with a weight."""
        kept, seed = weight > 0, int(problem.noise.together().integers(2**31 - 1, 1))
        for each in target.T[:, :, None] if self.forest.each else [target]:
            tree = grow(x[kept], each[kept], self.limits, seed, weight[kept])
            self.forest.write(as_tree(tree, tree.tree_.value[:, :, 0]))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: the forest is a model's, and the memory fills again."""


def targets(look: Look, curvature_BO: Tensor) -> tuple[Tensor, Tensor, bool]:
    """target_BO, weight_B, and whether the targets are laws over classes. Raises SanbuError for other objectives."""
    h_BO, g_BO = curvature_BO.double(), look.gradient.double()
    weight_B = h_BO[:, 0]
    if not bool(weight_B.any()) or not torch.allclose(h_BO, weight_B[:, None].expand_as(h_BO), rtol=1e-3):
        raise SanbuError("optimizer: bagging fits squared error and cross-entropy, not this objective; set boosting")
    step_BO = torch.where(h_BO > 0, -g_BO / h_BO, 0.0)
    classes = h_BO.shape[1]
    law_BO = 1 / classes + (1 / classes) * (1 - 1 / classes) * step_BO
    adds_up = bool(((law_BO.sum(1) - 1).abs() < 1e-4).all())
    if classes > 1 and adds_up and bool(((law_BO > -1e-4) & (law_BO < 1 + 1e-4)).all()):
        return law_BO.clamp(0, 1), weight_B, True
    return step_BO, weight_B, False
