"""Gradient boosting: each tree is fitted to the negative gradient of the loss at the forest's outputs (Friedman, 2001).

    f <- f + eta * tree,   splits: the squared error of -g,   leaves: Newton's step on the loss of their rows

The first round begins with the constant, and with a ridge regression where the model has a linear part. Any objective
will do: of a regression, a classifier, a denoiser. With `rows` below 1 each tree sees a part of the batch (Friedman,
2002).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import Positive, SanbuError
from sanbu.layers.forest import SUM, Forest
from sanbu.layers.forest_memory import Memory
from sanbu.optimizers.growing import Limits, as_tree, finite, grow, leaf_values
from sanbu.optimizers.linear import fit_linear
from sanbu.optimizers.outputs import Look, curvature_at, forest_of, gradient_at, shifted
from sanbu.optimizers.search import Metrics, OptimizerConfig, Problem, Search


class Boosting(OptimizerConfig):
    """Trees one after another, each on what those before have left, for model=trees and model=tree-denoiser."""

    kind: Literal["boosting"] = "boosting"
    learning_rate: float = Field(0.1, gt=0, le=1, description="part of a tree that is added")
    trees: Positive = Field(1, description="trees per step, each on the gradient after the one before")
    depth: Positive = Field(4, le=64, description="most splits between the root and a leaf")
    leaf: Positive = Field(5, description="least rows in a leaf")
    rows: float = Field(1.0, gt=0, le=1, description="part of the rows that each tree sees")
    features: float = Field(1.0, gt=0, le=1, description="part of the features that each split may use")
    penalty: float = Field(1.0, ge=0, description="added to the curvature of a leaf: shrinks leaves of few rows")
    ridge: float = Field(1.0, ge=0, description="penalty of the linear part, in rows, of standardised columns")

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        forest = forest_of(models, self.kind)
        check_room(forest, steps, self.trees)
        return Booster(self, forest)


def check_room(forest: Forest, steps: int, trees: int) -> None:
    """Raise SanbuError if the forest has no room for the trees of all steps."""
    each = forest.outputs if forest.each else 1
    needed = steps * trees * each
    if needed > forest.trees:
        of = f", {each} outputs" if each > 1 else ""
        raise SanbuError(
            f"model.trees: given {forest.trees}, but {steps} steps of {trees * each} trees{of} need {needed}; set"
            f" model.trees={needed}, or fewer schedule.steps"
        )


class Booster:
    """Grows a forest; all that it knows is in the forest."""

    def __init__(self, config: Boosting, forest: Forest) -> None:
        self.config, self.forest = config, forest
        forest.memory = Memory()
        self.limits = Limits(config.depth, config.leaf, forest.most_leaves, config.features)

    def step(self, problem: Problem) -> Metrics:
        """Grow the trees of a round. Reports the loss before the first of them."""
        if self.forest.grown == 0:
            fit_linear(problem, self.forest, self.config.ridge)
            self.forest.state[2] = SUM
        metrics: Metrics = {}
        for _ in range(self.config.trees):
            curvature_BO = curvature_at(problem, self.forest)
            look, found = gradient_at(problem, self.forest)
            self._grow(problem, look, curvature_BO)
            metrics = metrics or found
        return metrics | {"trees": float(self.forest.grown)}

    def _grow(self, problem: Problem, look: Look, curvature_BO: Tensor) -> None:
        """Add one tree, or one for each output."""
        x, target = finite(look.x), -look.gradient.double().cpu().numpy()
        used_B = problem.noise.uniform(len(x)) < self.config.rows if self.config.rows < 1 else None
        chosen = slice(None) if used_B is None else used_B.cpu().numpy()
        seed = int(problem.noise.together().integers(2**31 - 1, 1))
        targets = target[chosen].T if self.forest.each else [target[chosen]]
        grown = [grow(x[chosen], each, self.limits, seed) for each in targets]
        leaves = [torch.from_numpy(tree.apply(x)).to(look.x.device)[:, None] for tree in grown]
        leaf_BO = torch.cat(leaves, 1).expand_as(look.gradient)
        value_LO = leaf_values(
            look.gradient,
            curvature_BO,
            leaf_BO,
            max(tree.tree_.node_count for tree in grown),
            self.config.penalty,
            lambda shift: gradient_at(problem, self.forest, shifted(shift))[0].gradient,
            None if used_B is None else used_B[:, None],
        )
        values = (self.config.learning_rate * value_LO).cpu().numpy()
        for output, tree in enumerate(grown):
            columns = values[:, output : output + 1] if self.forest.each else values
            self.forest.write(as_tree(tree, columns[: tree.tree_.node_count]))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: the forest is a model's, and the memory fills again."""
