"""Evolution strategies: a normal law over parameters that moves towards lower loss.

OpenAI-ES  g = 1 / (2 n sigma) sum_i (r(m + sigma e_i) - r(m - sigma e_i)) e_i,  m along g by Adam  (Salimans, 2017)
SNES       m <- m + a s sum_i u_i e_i;  s <- s exp(b / 2 sum_i u_i (e_i^2 - 1)),  also with pairs  (Schaul, 2011)

r are centred ranks of the losses and u weights by rank, so that any increasing function of the loss moves the law
the same way; equal losses share their ranks, so that a flat loss moves nothing. P members, n pairs, D parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from sanbu.config import SanbuError, kind_of
from sanbu.optimizers.gradient import Adam, GradientSearch
from sanbu.optimizers.population import (
    Flat,
    PopulationConfig,
    centred_ranks,
    expected_by_rank,
    generator_of,
    loss_of,
    losses_of,
    normal,
    report,
)
from sanbu.optimizers.rate import CosineRate
from sanbu.optimizers.search import Metrics, OptimizerConfig, Problem, Search


def even(population: int) -> int:
    """The number itself. Raises ValueError for an odd one."""
    if population % 2:
        raise ValueError(f"given {population}, but the members are pairs; give an even number")
    return population


def mirrored(mean_D: Tensor, steps_ND: Tensor) -> Tensor:
    """The members m + step and then m - step, [2 N, D]."""
    return torch.cat((mean_D + steps_ND, mean_D - steps_ND))


class Evolution(PopulationConfig):
    """OpenAI's evolution strategy (Salimans and others, 2017): antithetic pairs, ranks, Adam."""

    kind: Literal["evolution"] = "evolution"
    deviation: float = Field(0.05, gt=0, description="standard deviation of the perturbations")
    inner: OptimizerConfig = Field(
        Adam(learning_rate=0.02, betas=(0.9, 0.99), rate=CosineRate()),
        description="search that moves the mean along the estimated gradient, with its rate and weight decay",
    )

    @field_validator("population")
    @classmethod
    def _pairs(cls, population: int) -> int:
        return even(population)

    def resolve(self, rate: float) -> Self:
        return self.model_copy(update={"inner": self.inner.resolve(rate)})

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        inner = self.inner.build(models, steps)
        if not isinstance(inner, GradientSearch):
            given = kind_of(self.inner)
            raise SanbuError(f"optimizer.inner: given {given!r}, allowed: a search along the gradient, such as adam")
        return Antithetic(self, models, inner)


def slope(directions_ND: Tensor, better_N: Tensor, worse_N: Tensor, deviation: float) -> Tensor:
    """The estimated gradient, [D], from the values at m + deviation e (`better`) and at m - deviation e (`worse`).

    It is exact for a linear function and D orthonormal directions times sqrt(D).
    """
    weights_N = (better_N - worse_N).to(directions_ND.dtype)
    return weights_N @ directions_ND / (2 * deviation * len(directions_ND))


class Antithetic:
    """The mean is the model; the inner search moves it along the estimated gradient."""

    def __init__(self, config: Evolution, models: Mapping[str, nn.Module], inner: GradientSearch) -> None:
        self.config, self.flat, self.inner = config, Flat(models), inner
        self.pairs = inner.pairs

    @torch.no_grad()
    def step(self, problem: Problem) -> Metrics:
        """One generation. Reports the losses of the model and of the best member, and the rate of the inner search."""
        config, loss, mean_D = self.config, loss_of(problem), self.flat.vector()
        pairs = config.population // 2
        directions_ND = normal(generator_of(problem.noise, mean_D.device), mean_D, pairs, len(mean_D))
        members_PD = mirrored(mean_D, config.deviation * directions_ND)
        losses_P = losses_of(problem, self.flat, members_PD, config.batched, config.chunk)
        better_N, worse_N = centred_ranks(losses_P).chunk(2)
        self.flat.set_gradient(slope(directions_ND, better_N, worse_N, config.deviation))
        metrics = self.inner.follow(report(loss, losses_P), problem.round)
        for parameter in self.flat.parameters:
            parameter.grad = None
        return metrics

    def tensors(self) -> list[Tensor]:
        """What a generation keeps in memory: the directions and the members."""
        return [self.flat.vector().new_empty(3 * self.config.population // 2, sum(self.flat.sizes))]

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


class SNES(PopulationConfig):
    """Separable natural evolution strategies (Schaul, Glasmachers and Schmidhuber, 2011), with antithetic pairs."""

    kind: Literal["snes"] = "snes"
    deviation: float = Field(0.05, gt=0, description="standard deviation of each parameter at first")
    learning_rate: float = Field(1.0, gt=0, description="of the mean")
    spread: float | Literal["auto"] = Field("auto", description="rate of the deviations; auto: (3 + ln D) / 5 sqrt(D)")

    @field_validator("population")
    @classmethod
    def _pairs(cls, population: int) -> int:
        return even(population)

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return Separable(self, models)


def utilities(population: int) -> Tensor:
    """Weights by rank: max(0, ln(P / 2 + 1) - ln(rank)), scaled to sum 1, minus 1 / P. float64."""
    rank_P = torch.arange(1, population + 1, dtype=torch.double)
    raw_P = (math.log(population / 2 + 1) - rank_P.log()).clamp(min=0)
    return raw_P / raw_P.sum() - 1 / population


class Separable:
    """The mean is the model; each parameter has its own deviation."""

    def __init__(self, config: SNES, models: Mapping[str, nn.Module]) -> None:
        self.config, self.flat = config, Flat(models)
        mean_D = self.flat.vector()
        self.deviation = torch.full_like(mean_D, config.deviation)
        usual = (3 + math.log(len(mean_D))) / (5 * math.sqrt(len(mean_D)))
        self.spread = usual if config.spread == "auto" else config.spread

    @torch.no_grad()
    def step(self, problem: Problem) -> Metrics:
        """One generation. Reports the loss of the model, the lowest of the population, and the mean deviation."""
        config, loss, mean_D = self.config, loss_of(problem), self.flat.vector()
        pairs = config.population // 2
        noise_ND = normal(generator_of(problem.noise, mean_D.device), mean_D, pairs, len(mean_D))
        losses_P = losses_of(
            problem, self.flat, mirrored(mean_D, self.deviation * noise_ND), config.batched, config.chunk
        )
        weights_P = expected_by_rank(losses_P, utilities(config.population).to(losses_P))
        plus_N, minus_N = weights_P.to(mean_D).chunk(2)
        self.flat.set(mean_D + config.learning_rate * self.deviation * ((plus_N - minus_N) @ noise_ND))
        both_N = plus_N + minus_N
        growth_D = both_N @ noise_ND.square() - both_N.sum()
        self.deviation = self.deviation * (self.spread / 2 * growth_D).exp()
        return report(loss, losses_P) | {"deviation": float(self.deviation.mean())}

    def tensors(self) -> list[Tensor]:
        """What it keeps, and what a generation has in memory: draws and members."""
        return [self.deviation, self.deviation.new_empty(2 * self.config.population, len(self.deviation))]

    def state_dict(self) -> dict[str, Any]:
        return {"deviation": self.deviation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.deviation = state["deviation"]
