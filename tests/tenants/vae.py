"""VAE: -log p(x) <= E_q[-log p(x|z)] + KL(q(z|x) || p(z)) (Kingma and Welling, 2014)."""

from typing import Literal

import torch
from torch import nn

from sanbu.models.model import ModelConfig
from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.optimizers.gradient import Adam
from sanbu.optimizers.rate import LinearRate
from sanbu.recipe import Recipe, Schedule
from tests.tenants.common import CPU, Made, OneShotConfig, rows


class Gaussians(nn.Module):
    """Linear encoder and decoder with learnt noise: the model contains the true distribution, so the bound is tight."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(2, 4), nn.Linear(2, 2)
        self.spread = nn.Parameter(torch.zeros(2))

    def forward(self, x, noise=None):
        if noise is None:
            return self.decode(x) + 0 * self.spread
        mean, log_deviation = self.encode(x).chunk(2, 1)
        z = mean + log_deviation.exp() * noise
        kl = (mean**2 / 2 + (2 * log_deviation).exp() / 2 - log_deviation - 0.5).sum()
        return -torch.distributions.Normal(self.decode(z), self.spread.exp()).log_prob(x).sum() + kl


class GaussiansConfig(ModelConfig):
    kind: Literal["tenant-vae"] = "tenant-vae"

    def build(self, space):
        return Gaussians()


class Elbo(ObjectiveConfig):
    kind: Literal["tenant-elbo"] = "tenant-elbo"

    def build(self):
        def draw(round):
            return {**round.batch, "noise": round.noise.normal(len(round.batch["x"]), 2)}

        loss = lambda models, batch: Loss({"rows": models["model"](batch["x"], batch["noise"])})
        return Objective(loss, rows, experience=draw)


def recipe():
    return Recipe(
        name="vae", data=Made(maker="pair"), model=GaussiansConfig(), objective=Elbo(), strategy=OneShotConfig(),
        machine=CPU,
        optimizer=Adam(learning_rate=0.02, rate=LinearRate()),
        schedule=Schedule(steps=600, batch=256, evaluate_every=600, evaluate_rows=64),
    )  # fmt: skip
