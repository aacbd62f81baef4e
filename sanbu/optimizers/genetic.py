"""A genetic algorithm: the fittest members of a population are copied, crossed and mutated (Holland, 1975).

With crossover=0 and adaptation=0 it is the algorithm of Such and others (2017). Every generation is measured on the
rows of its round, the elite as well: a member that was lucky on other rows is no elite. Genomes are kept as they are:
from seeds a genome costs a draw of D normals for each generation. P members, C children, D parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sanbu.optimizers.population import (
    Flat,
    PopulationConfig,
    generator_of,
    loss_of,
    losses_of,
    normal,
    report,
)
from sanbu.optimizers.search import Metrics, Problem, Search


class Genetic(PopulationConfig):
    """Selection, crossover, mutation, an elite that stays."""

    kind: Literal["genetic"] = "genetic"
    selection: Literal["truncation", "tournament"] = "truncation"
    parents: int = Field(16, ge=1, description="(truncation) members that may have children")
    contest: int = Field(4, ge=1, description="(tournament) members of whom the best has a child")
    elite: int = Field(1, ge=0, description="best members that stay unchanged")
    crossover: float = Field(1.0, ge=0, le=1, description="fraction of children with two parents")
    mutation: float = Field(0.05, ge=0, description="standard deviation of the change of a child")
    adaptation: float = Field(
        0.2, ge=0, description="deviation of the log of a child's own mutation, which it inherits; 0: all the same"
    )

    @model_validator(mode="after")
    def _fits(self) -> Genetic:
        if self.elite >= self.population or self.parents > self.population:
            raise ValueError(
                f"elite and parents: given {self.elite} and {self.parents} of {self.population} members; elite must be"
                " less than population, parents at most population"
            )
        return self

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return Breeding(self, models)


class Breeding:
    """A population with its losses on the last round. The model holds the best member."""

    def __init__(self, config: Genetic, models: Mapping[str, nn.Module]) -> None:
        self.config, self.flat = config, Flat(models)
        self.genes = self.flat.vector().expand(config.population, -1).clone()
        self.mutation = torch.full((config.population,), config.mutation, device=self.genes.device)
        zeros = torch.zeros(config.population, dtype=torch.double, device=self.genes.device)
        self.losses = zeros  # equal: the first parents are alike

    @torch.no_grad()
    def step(self, problem: Problem) -> Metrics:
        """One generation. Reports the loss of the model, the lowest of the population, and the elite's mutation."""
        loss = loss_of(problem)
        generator = generator_of(problem.noise, self.genes.device)
        self.genes, self.mutation = self.offspring(generator)
        self.losses = losses_of(problem, self.flat, self.genes, self.config.batched, self.config.chunk)
        best = int(self.losses.argmin())
        self.flat.set(self.genes[best])
        return report(loss, self.losses) | {"mutation": float(self.mutation[best])}

    def offspring(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The elite, then children; the mutation of each."""
        config, children = self.config, self.config.population - self.config.elite
        order = self.losses.argsort(stable=True)
        elite, first = order[: config.elite], self.select(order, children, generator)
        genes_CD, mutation_C = self.genes[first], self.mutation[first]
        if config.crossover:
            genes_CD = self.cross(genes_CD, self.genes[self.select(order, children, generator)], generator)
        if config.adaptation:
            mutation_C = mutation_C * (config.adaptation * normal(generator, mutation_C, children)).exp()
        changed_CD = genes_CD + mutation_C[:, None] * normal(generator, genes_CD, *genes_CD.shape)
        return torch.cat((self.genes[elite], changed_CD)), torch.cat((self.mutation[elite], mutation_C))

    def select(self, order: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Members that have children, by number; order: all, the best first."""
        draw = lambda high, *shape: torch.randint(high, shape, generator=generator, device=order.device)  # noqa: E731
        if self.config.selection == "truncation":
            return order[draw(self.config.parents, count)]
        return order[draw(len(order), count, self.config.contest).amin(1)]

    def cross(self, first_CD: Tensor, second_CD: Tensor, generator: torch.Generator) -> Tensor:
        """Each gene from one of two parents, for a fraction of the children (uniform crossover, Syswerda, 1989)."""
        coin = lambda *shape: torch.rand(shape, generator=generator, device=first_CD.device)  # noqa: E731
        crossed_C1 = coin(len(first_CD), 1) < self.config.crossover
        return torch.where(crossed_C1 & (coin(*first_CD.shape) < 0.5), second_CD, first_CD)

    def tensors(self) -> list[Tensor]:
        """What it keeps, and what a generation has in memory: the children, parents and their mutations."""
        return [self.genes, self.mutation, self.losses, self.genes.new_empty(3, *self.genes.shape)]

    def state_dict(self) -> dict[str, Any]:
        return {"genes": self.genes, "mutation": self.mutation, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.genes, self.mutation, self.losses = state["genes"], state["mutation"], state["losses"]
