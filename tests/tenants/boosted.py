"""Gradient boosting (Friedman, 2001): each tree is fitted to the negative gradient at the model's output."""

from typing import Literal

import torch
from sklearn.tree import DecisionTreeRegressor
from torch import nn

from sanbu.models.model import ModelConfig
from sanbu.optimizers.search import OptimizerConfig
from sanbu.recipe import Recipe, Schedule
from tests.tenants.common import CPU, Made, OneShotConfig
from tests.tenants.genetic import Squares


class Trees(nn.Module):
    """A sum of full trees of depth 3 on one feature, stored as sorted thresholds and the values between them."""

    def __init__(self, trees):
        super().__init__()
        for name, tensor in {"thresholds": torch.full((trees, 7), 1e30), "values": torch.zeros(trees, 8)}.items():
            self.register_buffer(name, tensor)

    def forward(self, x):
        leaf = (x[:, :, None] > self.thresholds).sum(2)
        return self.values[torch.arange(len(self.values)), leaf].sum(1, keepdim=True)


class TreesConfig(ModelConfig):
    kind: Literal["tenant-trees"] = "tenant-trees"

    def build(self, space):
        return Trees(40)


class Boosting(OptimizerConfig):
    kind: Literal["tenant-boosting"] = "tenant-boosting"

    def build(self, models, steps):
        return Booster(models["model"], shrinkage=0.3)


class Booster:
    def __init__(self, model, shrinkage):
        self.model, self.shrinkage, self.grown = model, shrinkage, 0

    def step(self, problem):
        seen = []
        value = problem.value({"model": lambda x: seen.append((x, self.model(x).requires_grad_())) or seen[-1][1]})
        x, output = seen[0]
        slope = torch.autograd.grad(value, output)[0] * len(x) / 2
        tree = DecisionTreeRegressor(max_depth=3, random_state=0).fit(x, -slope).tree_
        cuts = torch.tensor(sorted(tree.threshold[tree.feature >= 0]), dtype=torch.float32)
        middles = torch.cat((cuts[:1] - 1, (cuts[1:] + cuts[:-1]) / 2, cuts[-1:] + 1)).numpy()[:, None]
        self.model.thresholds[self.grown, : len(cuts)] = cuts
        leaves = torch.from_numpy(tree.predict(middles)).flatten()
        self.model.values[self.grown, : len(middles)] = self.shrinkage * leaves
        self.grown += 1
        return {"loss": value.item()}

    def state_dict(self):
        return {"grown": self.grown}

    def load_state_dict(self, state):
        self.grown = state["grown"]


def recipe():
    return Recipe(
        name="boosted", data=Made(maker="curve"), model=TreesConfig(), objective=Squares(),
        strategy=OneShotConfig(noise=1),
        optimizer=Boosting(), machine=CPU, schedule=Schedule(steps=40, batch=512),
    )  # fmt: skip
