"""Evolution strategies: a normal law over parameters that moves towards lower loss.

OpenAI-ES  g = 1 / (n sigma) sum_i (r(m + sigma e_i) - r(m - sigma e_i)) e_i,  m by Adam along g    (Salimans, 2017)
SNES       m <- m + a s sum_i u_i e_i;  s <- s exp(b / 2 sum_i u_i (e_i^2 - 1))                    (Schaul, 2011)

r are centred ranks of the losses and u weights by rank, so that any increasing function of the loss moves the law
the same way; equal losses share their ranks, so that a flat loss moves nothing. P members, n pairs, D parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from sanbu.optimizers.population import Batched, Flat, centred_ranks, expected_by_rank, generator_of, losses_of, normal
from sanbu.optimizers.rate import ConstantRate, RateConfig
from sanbu.optimizers.search import Metrics, OptimizerConfig, Problem, Search


class PopulationConfig(OptimizerConfig):
    """What searches with a population share."""

    population: int = Field(256, ge=2, description="members per generation")
    batched: Batched = Field("auto", description="members at once (vmap) or one by one (loop)")
    chunk: int = Field(32, ge=1, description="members at once")


class Evolution(PopulationConfig):
    """OpenAI's evolution strategy (Salimans and others, 2017): antithetic pairs, ranks, Adam."""

    kind: Literal["evolution"] = "evolution"
    learning_rate: float = Field(0.02, gt=0)
    deviation: float = Field(0.05, gt=0, description="standard deviation of the perturbations")
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    rate: RateConfig = ConstantRate()

    @field_validator("population")
    @classmethod
    def _pairs(cls, population: int) -> int:
        if population % 2:
            raise ValueError(f"given {population}, but the members are pairs; give an even number")
        return population

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return Antithetic(self, models, steps)


def slope(directions_ND: Tensor, better_N: Tensor, worse_N: Tensor, deviation: float) -> Tensor:
    """The estimated gradient, [D], from the values at m + deviation e (`better`) and at m - deviation e (`worse`).

    It is exact for a linear function and D orthonormal directions times sqrt(D).
    """
    weights_N = (better_N - worse_N).to(directions_ND.dtype)
    return weights_N @ directions_ND / (2 * deviation * len(directions_ND))


class Antithetic:
    """The mean is the model; Adam moves it."""

    def __init__(self, config: Evolution, models: Mapping[str, nn.Module], steps: int) -> None:
        self.config, self.flat, self.updates = config, Flat(models), 0
        self.mean = nn.Parameter(self.flat.vector())
        self.adam = torch.optim.Adam([self.mean], config.learning_rate, betas=config.betas)
        self.rate = config.rate.build(steps)

    @torch.no_grad()
    def step(self, problem: Problem) -> Metrics:
        """One generation. Reports the lowest and the mean loss of the population."""
        config, mean_D = self.config, self.flat.vector()
        pairs = config.population // 2
        directions_ND = normal(generator_of(problem.noise, mean_D.device), mean_D, pairs, len(mean_D))
        members_PD = torch.cat((mean_D + config.deviation * directions_ND, mean_D - config.deviation * directions_ND))
        losses_P = losses_of(problem, self.flat, members_PD, config.batched, config.chunk)
        ranks_P = centred_ranks(losses_P)
        self.mean.data.copy_(mean_D)
        self.mean.grad = slope(directions_ND, ranks_P[:pairs], ranks_P[pairs:], config.deviation)
        rate = config.learning_rate * self.rate(self.updates)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.flat.set(self.mean.data * (1 - rate * config.weight_decay))
        self.updates += 1
        return report(losses_P)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.adam.load_state_dict(state["adam"])


def report(losses_P: Tensor) -> Metrics:
    """The mean loss of the members that have a finite one, and the lowest."""
    finite = losses_P[losses_P.isfinite()]
    return {"loss": float(finite.mean()), "lowest": float(finite.min())}


class SNES(PopulationConfig):
    """Separable natural evolution strategies (Schaul, Glasmachers and Schmidhuber, 2011)."""

    kind: Literal["snes"] = "snes"
    deviation: float = Field(0.05, gt=0, description="standard deviation of each parameter at first")
    learning_rate: float = Field(1.0, gt=0, description="of the mean")
    spread: float | Literal["auto"] = Field("auto", description="rate of the deviations; auto: (3 + ln D) / 5 sqrt(D)")

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
        """One generation. Reports the lowest and the mean loss of the population."""
        config, mean_D = self.config, self.flat.vector()
        noise_PD = normal(generator_of(problem.noise, mean_D.device), mean_D, config.population, len(mean_D))
        members_PD = mean_D + self.deviation * noise_PD
        losses_P = losses_of(problem, self.flat, members_PD, config.batched, config.chunk)
        weights_P = expected_by_rank(losses_P, utilities(config.population).to(mean_D.device)).to(mean_D.dtype)
        self.flat.set(mean_D + config.learning_rate * self.deviation * (weights_P @ noise_PD))
        self.deviation = self.deviation * (self.spread / 2 * (weights_P @ (noise_PD.square() - 1))).exp()
        return report(losses_P)

    def state_dict(self) -> dict[str, Any]:
        return {"deviation": self.deviation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.deviation = state["deviation"]
