"""Trees as a predictor: outputs_BO = base + slope x + sum over trees of the value at the leaf of x (layers/forest.py).

Which trees they are is a matter of the search: `boosting` adds each to what those before have left (Friedman, 2001),
`bagging` averages trees that are each fitted alone (Breiman, 1996 and 2001).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from sanbu.config import Positive
from sanbu.layers.forest import Forest
from sanbu.models.predictors.predictor import PredictorConfig
from sanbu.space import Space

Leaf = Literal["all", "one"]
MOST_NODES = 2**31 - 1


class Trees(PredictorConfig):
    """Regression trees over the flattened input; missing values (NaN) are allowed."""

    kind: Literal["trees"] = "trees"
    searches: ClassVar[tuple[str, ...]] = ("boosting", "bagging")
    trees: Positive = Field(200, description="most trees; the search grows optimizer.trees of them per step")
    leaves: int = Field(32, ge=2, description="most leaves of a tree")
    leaf: Leaf = Field("all", description="what a leaf has: a value for all outputs, or for one output, trees in turn")
    linear: Literal["none", "ridge"] = Field("none", description="linear part, fitted before the first tree")

    def check(self, space: Space) -> None:
        check_size(self.trees, self.leaves)

    def build(self, space: Space) -> nn.Module:
        return TreePredictor(self, math.prod(space.shape), self.count_outputs(space))


def check_size(trees: int, leaves: int) -> None:
    """Raise ValueError if the nodes cannot be counted in 31 bits."""
    if trees * 2 * leaves > MOST_NODES:
        raise ValueError(f"model: given {trees:,} trees of {leaves:,} leaves; allowed: a product below 2^30")


class TreePredictor(nn.Module):
    """x -> outputs_BO."""

    def __init__(self, config: Trees, inputs: int, outputs: int) -> None:
        super().__init__()
        design = inputs if config.linear == "ridge" else 0
        self.forest = Forest(outputs, config.trees, config.leaves, config.leaf == "one", design)

    def forward(self, x: Tensor) -> Tensor:
        x_BF = x.flatten(1).float()
        return self.forest(x_BF, x_BF)
