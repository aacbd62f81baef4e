"""Shared by the tests of boosting and bagging."""

import torch

from sanbu.noise import Noise
from sanbu.objectives.objective import Turn
from sanbu.optimizers.search import Problem
from sanbu.space import Space


def problem(model, objective, batch, step=0, micro=None, seed=0):
    """A turn of an objective on a batch."""
    made = objective.build()
    turn = Turn("model", batch, made.loss, made.count)
    return Problem({"model": model}, turn, {"model": model}, Noise(seed, "search", step), micro)


def fit(config, search, objective, batch, steps=1, classes=0, micro=None, seed=0):
    """The model after some steps of a search, and the losses before each."""
    model = config.build(Space(tuple(batch["x"].shape[1:]), classes=classes))
    found, losses = search.build({"model": model}, steps), []
    for step in range(steps):
        losses.append(found.step(problem(model, objective, batch, step, micro, seed))["loss"])
    return model, losses


def loss(model, objective, batch):
    """The loss of a model."""
    return float(problem(model, objective, batch).value())


def numbers(rows=200, features=4, outputs=2, missing=0.0):
    """A regression of some outputs."""
    noise = Noise("trees", rows, features)
    x = noise.normal(rows, features)
    y = torch.stack([torch.sin(2 * x[:, o % features]) + x[:, (o + 1) % features] for o in range(outputs)], 1)
    y = y + 0.3 * noise.normal(rows, outputs)
    return {"x": torch.where(noise.uniform(rows, features) < missing, torch.nan, x), "y": y}


def classes(rows=200, features=4, count=3):
    """Labels by the largest of some noisy numbers."""
    noise = Noise("classes", rows, features)
    x = noise.normal(rows, features)
    return {"x": x, "y": (x[:, :count] + 0.5 * noise.normal(rows, count)).argmax(1)}
