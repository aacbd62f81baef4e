"""Flow matching: the velocity of x_t = (1 - t) noise + t x (Lipman and others, 2023), sampled by Euler steps."""

from typing import Literal

import torch

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.optimizers.gradient import Adam
from sanbu.optimizers.rate import LinearRate
from sanbu.recipe import Recipe, Schedule
from sanbu.space import Draft
from sanbu.strategies.strategy import StrategyConfig
from tests.tenants.common import CPU, Made, Net, State, normal, rows


class Flow(ObjectiveConfig):
    kind: Literal["tenant-flow"] = "tenant-flow"

    def build(self):
        def draw(round):
            x = round.batch["x"]
            e, t = round.noise.normal(*x.shape), round.noise.uniform(len(x), 1)
            return {"input": torch.cat(((1 - t) * e + t * x, t), 1), "velocity": x - e}

        def loss(models, batch):
            return Loss({"rows": (models["model"](batch["input"]) - batch["velocity"]).square().sum()})

        return Objective(loss, rows, experience=draw)


class Euler(StrategyConfig):
    kind: Literal["tenant-euler"] = "tenant-euler"
    steps: int = 32

    def build(self, space):
        return self

    def begin(self, condition, seeds):
        return State(normal(seeds, 2), 0, self.steps)

    def advance(self, models, state):
        t = torch.full((len(state.x), 1), state.step / self.steps)
        return State(state.x + models["model"](torch.cat((state.x, t), 1)) / self.steps, state.step + 1, self.steps)

    def draft(self, state):
        done = state.done[:, None].expand_as(state.x)
        return Draft(state.x, done, state.done, torch.full((len(state.x),), state.step))


def recipe():
    return Recipe(
        name="flow", data=Made(maker="pair"), model=Net(inputs=3, width=64), objective=Flow(), strategy=Euler(),
        machine=CPU,
        optimizer=Adam(learning_rate=5e-3, rate=LinearRate()), schedule=Schedule(steps=1000, batch=256),
    )  # fmt: skip
