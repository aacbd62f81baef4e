"""Masked text (Devlin and others, 2019), sampled by mask-predict (Ghazvininejad and others, 2019)."""

from typing import Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sanbu.models.model import ModelConfig
from sanbu.noise import uniform_at
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.optimizers.gradient import Adam
from sanbu.optimizers.rate import LinearRate
from sanbu.recipe import Recipe, Schedule
from sanbu.space import Draft
from sanbu.strategies.strategy import StrategyConfig
from tests.tenants.common import CPU, Made, State

MASK = 5


class Reader(ModelConfig):
    kind: Literal["tenant-reader"] = "tenant-reader"
    width: int = 32

    def build(self, space):
        last = nn.Linear(128, 30), nn.Unflatten(1, (6, 5))
        first = nn.Embedding(6, self.width), nn.Flatten(), nn.Linear(6 * self.width, 128)
        return nn.Sequential(*first, nn.ReLU(), *last)


class Masked(ObjectiveConfig):
    kind: Literal["tenant-masked"] = "tenant-masked"

    def build(self):
        def hide(round):
            batch, noise = round.batch, round.noise
            hidden = noise.uniform(*batch["x"].shape) < noise.uniform(len(batch["x"]), 1)
            return {"x": batch["x"].masked_fill(hidden, MASK), "y": batch["x"].masked_fill(~hidden, -100)}

        def loss(models, b):
            logits = models["model"](b["x"]).flatten(0, 1)
            return Loss({"hidden": cross_entropy(logits, b["y"].flatten(), reduction="sum")})

        return Objective(loss, lambda b: {"hidden": float((b["y"] >= 0).sum())}, experience=hide)


class MaskPredict(StrategyConfig):
    kind: Literal["tenant-mask-predict"] = "tenant-mask-predict"

    def build(self, space):
        return self

    def begin(self, condition, seeds):
        state = State(torch.full((len(seeds), 6), MASK), 0, 6)
        state.seeds = seeds
        return state

    def advance(self, models, state):
        cumulative = models["model"](state.x).softmax(2).double().cumsum(2)
        u = uniform_at(state.seeds[:, None], torch.arange(6) + 6 * state.step)
        drawn = (cumulative < u[..., None]).sum(2).clamp(max=4)
        new = State(torch.where((state.x == MASK) & (torch.arange(6) <= state.step), drawn, state.x), state.step + 1, 6)
        new.seeds = state.seeds
        return new

    def draft(self, state):
        return Draft(state.x, state.x != MASK, state.done, torch.full((len(state.x),), state.step))


def recipe():
    return Recipe(
        name="masked", data=Made(maker="progression", shape=(6,), vocabulary=6), model=Reader(), objective=Masked(),
        strategy=MaskPredict(),
        optimizer=Adam(learning_rate=3e-3, rate=LinearRate()), machine=CPU, schedule=Schedule(steps=800, batch=128),
    )  # fmt: skip
