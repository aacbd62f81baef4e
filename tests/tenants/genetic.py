"""A genetic algorithm (Such and others, 2017): the fittest weights of a population are mutated, without gradients."""

from typing import Literal

import torch
from torch.func import functional_call, vmap

from sanbu.objectives.objective import Loss, Objective, ObjectiveConfig
from sanbu.optimizers.search import OptimizerConfig
from sanbu.recipe import Recipe, Schedule
from tests.tenants.common import CPU, Made, Net, OneShotConfig, rows


class Squares(ObjectiveConfig):
    kind: Literal["tenant-squares"] = "tenant-squares"

    def build(self):
        return Objective(lambda models, b: Loss({"rows": (models["model"](b["x"]) - b["y"]).square().sum()}), rows)


class Genetic(OptimizerConfig):
    kind: Literal["tenant-genetic"] = "tenant-genetic"
    population: int = 64
    elite: int = 8
    mutation: float = 0.03

    def build(self, models, steps):
        return Breeding(self, models["model"])


class Breeding:
    def __init__(self, config, model):
        self.config, self.model = config, model
        self.genes = {n: p.detach().expand(config.population, *p.shape).clone() for n, p in model.named_parameters()}

    @torch.no_grad()
    def step(self, problem):
        self.genes = {name: gene + self.mutation(gene, problem.noise) for name, gene in self.genes.items()}
        value = lambda genes: problem.value({"model": lambda x: functional_call(self.model, genes, (x,))})
        fitness = vmap(value)(self.genes)
        best = fitness.argsort()[: self.config.elite].repeat(self.config.population // self.config.elite)
        self.genes = {n: g[best] for n, g in self.genes.items()}
        self.model.load_state_dict({n: g[0] for n, g in self.genes.items()})
        return {"loss": float(fitness.min())}

    def mutation(self, gene, noise):
        change = self.config.mutation * noise.normal(*gene.shape)
        change[0] = 0  # the fittest stays unchanged
        return change

    def state_dict(self):
        return {"genes": self.genes}

    def load_state_dict(self, state):
        self.genes = state["genes"]


def recipe():
    return Recipe(
        name="genetic", data=Made(maker="curve"), model=Net(inputs=1, outputs=1, width=16), objective=Squares(),
        strategy=OneShotConfig(noise=1),
        optimizer=Genetic(), machine=CPU, schedule=Schedule(steps=300, batch=128),
    )  # fmt: skip
