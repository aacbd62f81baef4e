"""Two stages: x1 from noise, then x2 from x1 and noise; the second run samples through its parent, the first."""

from typing import Literal

import torch

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.optimizers.gradient import Adam
from sanbu.optimizers.rate import LinearRate
from sanbu.recipe import Recipe, Schedule
from sanbu.space import Draft
from sanbu.strategies.strategy import StrategyConfig
from tests.tenants.common import CPU, Made, Net, State, normal, rows


class Next(ObjectiveConfig):
    """-log N(x_i; mean(x_<i), deviation(x_<i)): one coordinate given the previous one."""

    kind: Literal["tenant-next"] = "tenant-next"
    coordinate: int = 0

    def build(self):
        def loss(models, batch):
            before = batch["x"][:, :1] * self.coordinate
            mean, log_deviation = models["model"](before).chunk(2, 1)
            x = batch["x"][:, self.coordinate, None]
            return Loss({"rows": -torch.distributions.Normal(mean, log_deviation.exp()).log_prob(x).sum()})

        return Objective(loss, rows)


class Cascade(StrategyConfig):
    kind: Literal["tenant-cascade"] = "tenant-cascade"

    def build(self, space):
        return self

    def begin(self, condition, seeds):
        return State(normal(seeds, 2), 0, 2)

    def advance(self, models, state):
        x = state.x.clone()
        before = x[:, :1] * state.step
        mean, log_deviation = models["first" if state.step == 0 else "model"](before).chunk(2, 1)
        x[:, state.step, None] = mean + log_deviation.exp() * x[:, state.step, None]
        return State(x, state.step + 1, 2)

    def draft(self, state):
        done = state.done[:, None].expand_as(state.x)
        evaluations, stage = torch.full((len(state.x),), state.step), ("", "first", "second")[state.step]
        return Draft(state.x, done, state.done, evaluations, stage=stage)


def recipe(coordinate=0, parents=None):
    return Recipe(
        name="stage", data=Made(maker="pair"), model=Net(inputs=1), objective=Next(coordinate=coordinate),
        strategy=Cascade(), machine=CPU,
        optimizer=Adam(learning_rate=5e-3, rate=LinearRate()), parents=parents or {},
        schedule=Schedule(steps=500, batch=256),
    )  # fmt: skip
