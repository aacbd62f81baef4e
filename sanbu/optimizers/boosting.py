"""Gradient boosting: each tree is fitted to the negative gradient of the loss at the forest's outputs (Friedman, 2001).

    f <- f + eta * tree,   splits: the squared error of -g,   leaves: Newton's step on the loss of their rows

The first round begins with the constant, and with a ridge regression where the model has a linear part. Any objective
will do: of a regression, a classifier, a denoiser. With `rows` below 1 each tree sees a part of the batch (Friedman,
2002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import Positive, SanbuError
from sanbu.layers.forest import SUM, Forest, Tree
from sanbu.layers.forest_memory import Memory
from sanbu.layers.growing import Limits, as_tree, finite, grow, leaf_values
from sanbu.optimizers import histogram
from sanbu.optimizers.linear import fit_linear
from sanbu.optimizers.outputs import Look, curvature_at, forest_of, gradient_at, shifted
from sanbu.optimizers.search import Metrics, OptimizerConfig, Problem, Search

FEW = 100_000  # numbers, rows times features, up to which all cuts are tried


class Boosting(OptimizerConfig):
    """Trees one after another, each on what those before have left, for model=trees and model=tree-denoiser."""

    kind: Literal["boosting"] = "boosting"
    learning_rate: float = Field(0.1, gt=0, le=1, description="part of a tree that is added")
    trees: Positive = Field(1, description="trees per step, each on the gradient after the one before")
    depth: Positive = Field(4, le=64, description="most splits between the root and a leaf")
    leaf: Positive = Field(5, description="least rows in a leaf")
    rows: float = Field(1.0, gt=0, le=1, description="part of the rows that each tree sees")
    features: float = Field(1.0, gt=0, le=1, description="part of the features that each split may use")
    splits: Literal["auto", "exact", "histogram"] = Field(
        "auto", description="cuts: all of them, or at most 254 per feature; auto: all for few numbers"
    )
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
        of = f" of {each} outputs" if each > 1 else ""
        raise SanbuError(
            f"model.trees: given {forest.trees}, but {steps} steps{of} grow {needed} trees; set"
            f" model.trees={needed}, or fewer schedule.steps"
        )


class Booster:
    """Grows a forest. cuts: of the features, once histograms are used; all else that it knows is in the forest."""

    def __init__(self, config: Boosting, forest: Forest) -> None:
        self.config, self.forest = config, forest
        forest.memory = Memory()
        self.cuts: Tensor | None = None
        self.binned: tuple[Tensor, Tensor] | None = None  # the last inputs, and their places in histograms
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
        used_B = None
        if self.config.rows < 1:
            used_B = problem.noise.uniform(len(look.x)) < self.config.rows
        seed = int(problem.noise.together().integers(2**31 - 1, 1))
        target = -look.gradient.double()
        targets = target.T[:, :, None] if self.forest.each else target[None]
        many = self.config.splits == "auto" and look.x.numel() > FEW
        split = self._by_histograms if many or self.config.splits == "histogram" else self._exactly
        grown, leaves = split(look.x, targets, used_B, seed)
        value_LO = leaf_values(
            look.gradient,
            curvature_BO,
            leaves.expand_as(look.gradient),
            int(leaves.max()) + 1,
            self.config.penalty,
            lambda shift: gradient_at(problem, self.forest, shifted(shift))[0].gradient,
            None if used_B is None else used_B[:, None],
        )
        values = (self.config.learning_rate * value_LO).cpu().numpy()
        for output, tree in enumerate(grown):
            columns = values[:, output : output + 1] if self.forest.each else values
            padded = np.zeros((len(tree.feature), columns.shape[1]))
            padded[: len(columns)] = columns[: len(padded)]
            self.forest.write(replace(tree, values=padded))

    def _exactly(self, x_BF: Tensor, targets: Tensor, used_B: Tensor | None, seed: int) -> tuple[list[Tree], Tensor]:
        """Trees by scikit-learn, and the leaf of each row in each."""
        x, chosen = finite(x_BF), slice(None) if used_B is None else used_B.cpu().numpy()
        target = targets.cpu().numpy()[:, chosen]
        grown = [grow(x[chosen], each, self.limits, seed) for each in target]
        leaves = torch.from_numpy(np.stack([tree.apply(x) for tree in grown], 1))
        return [as_tree(tree, np.zeros(0)) for tree in grown], leaves.to(x_BF.device)

    def _by_histograms(
        self, x_BF: Tensor, targets: Tensor, used_B: Tensor | None, seed: int
    ) -> tuple[list[Tree], Tensor]:
        """The same with the cuts of the first round."""
        if self.cuts is None:
            self.cuts = histogram.find_cuts(x_BF)
        if self.binned is None or not self.binned[0].equal(x_BF):
            self.binned = x_BF, histogram.bins_of(x_BF, self.cuts)
        place_BF, generator = self.binned[1], torch.Generator().manual_seed(seed)
        chosen = slice(None) if used_B is None else used_B
        grown, leaves = [], []
        for target in targets:
            growth, _ = histogram.grow(place_BF[chosen], target[chosen], self.cuts, self.limits, generator)
            grown.append(growth.tree(np.zeros(0)))
            leaves.append(leaves_of(grown[-1], x_BF))
        return grown, torch.stack(leaves, 1)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.cuts is None else {"cuts": self.cuts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cuts = state.get("cuts")
        self.cuts = None if self.cuts is None else self.cuts.to(self.forest.base.device)


def leaves_of(tree: Tree, x_BF: Tensor) -> Tensor:
    """The leaf_B of each row in a tree that is not yet in a forest."""
    alone = Forest(1, 1, len(tree.feature) // 2 + 1).to(x_BF.device)
    alone.write(replace(tree, values=np.zeros((len(tree.feature), 1))))
    return alone.leaves(x_BF)[:, 0].long()
