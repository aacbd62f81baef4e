"""Non-saturating GAN (Goodfellow and others, 2014) with a lazy R1 penalty (Mescheder and others, 2018)."""

from typing import Literal

import torch
from torch.nn.functional import softplus

from sanbu.layers.average import Exponential
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig, Turn
from sanbu.optimizers.gradient import Adam
from sanbu.recipe import Recipe, Schedule
from tests.tenants.common import CPU, Made, Net, OneShotConfig, net, rows


def critic_loss(models, batch):
    """softplus(D(fake)) + softplus(-D(real))."""
    fake = models["model"](batch["noise"]).detach()
    return Loss({"rows": (softplus(models["critic"](fake)) + softplus(-models["critic"](batch["x"]))).sum()})


def penalty_loss(models, batch):
    """4 gamma / 2 |grad_x D(x)|^2, in one of four rounds on average."""
    real = batch["x"].detach().requires_grad_()
    (slope,) = torch.autograd.grad(models["critic"](real).sum(), real, create_graph=True)
    return Loss({"rows": 4 * 0.05 * slope.square().sum()})


def generator_loss(models, batch):
    """softplus(-D(fake))."""
    return Loss({"rows": softplus(-models["critic"](models["model"](batch["noise"]))).sum()})


def turns(round):
    batch, noise = round.batch, round.noise
    real = {**batch, "noise": noise.normal(len(batch["x"]), 2)}
    yield Turn("critic", real, critic_loss, rows)
    if noise.together().uniform() < 0.25:
        yield Turn("critic", batch, penalty_loss, rows)
    yield Turn("model", {"noise": noise.normal(len(batch["x"]), 2)}, generator_loss, rows)


class Gan(ObjectiveConfig):
    kind: Literal["tenant-gan"] = "tenant-gan"

    def build(self):
        players = {"model": ("model",), "critic": ("critic",)}
        return Objective(generator_loss, rows, players, attach=lambda model: {"critic": net(2, 32, 1)}, turns=turns)


def recipe():
    return Recipe(
        name="gan", data=Made(maker="pair"), model=Net(), objective=Gan(), strategy=OneShotConfig(), machine=CPU,
        optimizer=Adam(learning_rate=2e-3, betas=(0.0, 0.99)), average=Exponential(decay=0.99),
        schedule=Schedule(steps=800, batch=128),
    )  # fmt: skip
