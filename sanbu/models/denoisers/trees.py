"""Trees as a denoiser: boosted on the velocity, this is a forest flow (Jolicoeur-Martineau and others, 2024).

Trees split on the columns of x_t, the clock and the label. The linear part has coefficients that are piecewise linear
in the clock: for normal data that is the velocity itself, and the trees add what is not normal.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.config import Positive
from sanbu.layers.forest import Forest
from sanbu.models.denoisers.denoiser import PathConfig
from sanbu.models.predictors.trees import Leaf, check_size
from sanbu.space import Space

LAST = 1000.0  # of the clock


class TreeDenoiser(PathConfig):
    """Regression trees over x_t, time and label, for tables and small pictures."""

    kind: Literal["tree-denoiser"] = "tree-denoiser"
    searches: ClassVar[tuple[str, ...]] = ("boosting",)
    trees: Positive = Field(200, description="most trees; the search grows optimizer.trees of them per step")
    leaves: int = Field(32, ge=2, description="most leaves of a tree")
    leaf: Leaf = Field("all", description="what a leaf has: a value for all outputs, or for one output, trees in turn")
    linear: Literal["none", "shared", "by-label"] = Field(
        "by-label", description="linear part: none, one for all labels with an offset each, or one for each label"
    )
    knots: int = Field(8, ge=2, le=64, description="times between which the coefficients of the linear part are linear")

    def check(self, space: Space) -> None:
        super().check(space)
        check_size(self.trees, self.leaves)

    def network(self, space: Space) -> nn.Module:
        return TreeNetwork(self, math.prod(space.shape), space.classes)


class TreeNetwork(nn.Module):
    """x_t, clock_B, label_B -> the prediction, in the shape of x_t."""

    def __init__(self, config: TreeDenoiser, size: int, classes: int) -> None:
        super().__init__()
        self.labels = classes + 1 if classes else 1
        self.linear, self.knots = config.linear, config.knots
        columns = {"none": 0, "shared": size + self.labels, "by-label": self.labels * (size + 1)}[config.linear]
        self.forest = Forest(size, config.trees, config.leaves, config.leaf == "one", columns * config.knots)

    def forward(self, x: Tensor, clock_B: Tensor, label_B: Tensor) -> Tensor:
        x_BF, clock_B1 = x.flatten(1).float(), clock_B.float()[:, None]
        label_BL = F.one_hot(label_B, self.labels).float() if self.labels > 1 else torch.ones_like(clock_B1)
        columns_BF = torch.cat((x_BF, clock_B1, label_BL) if self.labels > 1 else (x_BF, clock_B1), 1)
        design_BD = self.design(x_BF, clock_B1, label_BL) if self.linear != "none" else None
        return self.forest(columns_BF, design_BD).view_as(x)

    def design(self, x_BF: Tensor, clock_B1: Tensor, label_BL: Tensor) -> Tensor:
        """The columns of the linear part: those of x and the label times hat functions of the clock."""
        if self.linear == "by-label":
            one_BF = torch.cat((x_BF, torch.ones_like(clock_B1)), 1)
            columns_BC = (label_BL[:, :, None] * one_BF[:, None, :]).flatten(1)
        else:
            columns_BC = torch.cat((x_BF, label_BL), 1)
        return (hats(clock_B1, self.knots)[:, :, None] * columns_BC[:, None, :]).flatten(1)


def hats(clock_B1: Tensor, knots: int) -> Tensor:
    """Hat functions [B, knots] that sum to 1: each is 1 at one of evenly spaced times and 0 at the others."""
    place_K = torch.arange(knots, device=clock_B1.device, dtype=clock_B1.dtype)
    place_B1 = (clock_B1 / LAST).clamp(0, 1) * (knots - 1)
    return (1 - (place_B1 - place_K).abs()).clamp(min=0)
