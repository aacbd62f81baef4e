"""CMA-ES: a normal law whose covariance adapts to the function (Hansen, "The CMA evolution strategy", 2016).

y_i ~ N(0, C),  x_i = m + s y_i,  sorted by loss;  y_w = sum_i w_i y_i over the better half;  m <- m + s y_w
p_s <- (1 - c_s) p_s + sqrt(c_s (2 - c_s) mu) C^(-1/2) y_w;   s <- s exp(c_s / d_s (|p_s| / E|N(0, I)| - 1))
p_c <- (1 - c_c) p_c + h sqrt(c_c (2 - c_c) mu) y_w
C   <- (1 + c_1 (1 - h) c_c (2 - c_c) - c_1 - c_mu sum w) C + c_1 p_c p_c^T + c_mu sum_i w_i y_i y_i^T

`cma` keeps the whole covariance, with negative weights for the worse half, and is for up to a few thousand parameters.
`diagonal-cma` keeps its diagonal and learns it faster (Ros and Hansen, 2008). P members, D parameters; all in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import Auto, SanbuError
from sanbu.optimizers.population import (
    Flat,
    PopulationConfig,
    generator_of,
    loss_of,
    losses_of,
    normal,
    precise,
    report,
)
from sanbu.optimizers.search import Metrics, Problem, Search

MOST = 5_000  # parameters whose whole covariance is kept: 200 MB
LARGEST = 1e32  # of the step size
TINY = 1e-8


class CMAConfig(PopulationConfig):
    """The fields that both share."""

    population: Annotated[int, Field(ge=4)] | Auto = Field(  # type: ignore[assignment]
        "auto", description="members per generation; auto: 4 + 3 ln D"
    )
    deviation: float = Field(0.1, gt=0, description="standard deviation of each parameter at first")

    def size(self, parameters: int) -> int:
        """Members per generation."""
        return 4 + math.floor(3 * math.log(parameters)) if self.population == "auto" else self.population


class CMA(CMAConfig):
    """Covariance matrix adaptation with the whole matrix."""

    kind: Literal["cma"] = "cma"

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return Adapting(self, models, full_rates, Full)


class DiagonalCMA(CMAConfig):
    """Covariance matrix adaptation with a diagonal matrix, for many parameters."""

    kind: Literal["diagonal-cma"] = "diagonal-cma"

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return Adapting(self, models, diagonal_rates, Diagonal)


@dataclass(frozen=True)
class Rates:
    """weights by rank, mu_eff, and the learning rates c_1, c_mu, c_s, d_s, c_c of the tutorial."""

    weights: list[float]
    effective: float
    one: float
    many: float
    path: float
    damping: float
    covariance_path: float


def full_rates(population: int, size: int) -> Rates:
    """Table 1 of the tutorial, with negative weights."""
    half = population // 2
    raw = [math.log((population + 1) / 2) - math.log(rank) for rank in range(1, population + 1)]
    effective, against = effective_size(raw[:half]), effective_size(raw[half:])
    one = 2 / ((size + 1.3) ** 2 + effective)
    many = min(1 - one - 1e-8, 2 * (effective - 2 + 1 / effective) / ((size + 2) ** 2 + effective))
    bound = min(1 + one / many, 1 + 2 * against / (effective + 2), (1 - one - many) / (size * many))
    positive = sum(each for each in raw if each > 0)
    negative = -sum(each for each in raw if each < 0)
    weights = [each / positive if each >= 0 else bound * each / negative for each in raw]
    path = (effective + 2) / (size + effective + 5)
    cumulation = (4 + effective / size) / (size + 4 + 2 * effective / size)
    return Rates(weights, effective, one, many, path, damping(effective, size, path), cumulation)


def diagonal_rates(population: int, size: int) -> Rates:
    """Those of Ros and Hansen (2008): no negative weights, c_mu larger by (D + 2) / 3."""
    half = population // 2
    raw = [math.log(half + 1) - math.log(rank) for rank in range(1, half + 1)]
    weights = [each / sum(raw) for each in raw] + [0.0] * (population - half)
    effective = effective_size(raw)
    one = 2 / ((size + 1.3) ** 2 + effective)
    ratio = min(1.0, (2 * effective - 1) / ((size + 2) ** 2 + effective))
    whole = 2 / effective / (size + math.sqrt(2)) ** 2 + (1 - 1 / effective) * ratio
    path = (effective + 2) / (size + effective + 3)
    many = min((size + 2) / 3 * whole, 1 - one)
    return Rates(weights, effective, one, many, path, damping(effective, size, path), 4 / (size + 4))


def effective_size(weights: list[float]) -> float:
    """mu_eff: how many members of equal weight vary as much."""
    return sum(weights) ** 2 / sum(each**2 for each in weights)


def damping(effective: float, size: int, path: float) -> float:
    """d_s."""
    return 1 + 2 * max(0.0, math.sqrt((effective - 1) / (size + 1)) - 1) + path


class Full:
    """The whole covariance, C_DD, with the eigenvectors B and the square roots of the eigenvalues."""

    def __init__(self, size: int, like: Tensor) -> None:
        if size > MOST:
            raise SanbuError(
                f"optimizer: given 'cma' for {size:,} parameters, allowed: up to {MOST:,}; use optimizer=diagonal-cma"
            )
        self.matrix = torch.eye(size, dtype=like.dtype, device=like.device)
        self.vectors, self.roots = self.matrix, self.matrix.diagonal()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {"covariance": self.matrix, "vectors": self.vectors, "roots": self.roots}

    def load(self, state: dict[str, Any]) -> None:
        """Take up `tensors`."""
        self.matrix, self.vectors, self.roots = state["covariance"], state["vectors"], state["roots"]

    def decompose(self) -> None:
        """Eigenvectors and eigenvalues of the matrix as it is."""
        self.matrix = (self.matrix + self.matrix.T) / 2
        values_D, self.vectors = torch.linalg.eigh(self.matrix)
        self.roots = torch.where(values_D < 0, TINY, values_D).sqrt()

    def colour(self, noise_PD: Tensor) -> Tensor:
        """C^(1/2) z for each row, as B D z."""
        return noise_PD * self.roots @ self.vectors.T

    def whiten(self, y_PD: Tensor) -> Tensor:
        """C^(-1/2) y for each row."""
        return (y_PD @ self.vectors / self.roots) @ self.vectors.T

    def update(self, decay: float, one: float, path_D: Tensor, many: float, weights_P: Tensor, y_PD: Tensor) -> None:
        """decay C + one p p^T + many sum_i w_i y_i y_i^T; a negative w_i counts with the length of its whitened y_i."""
        length_P = self.whiten(y_PD).square().sum(1)
        scaled_P = weights_P * torch.where(weights_P >= 0, 1.0, y_PD.shape[1] / (length_P + TINY))
        new = (scaled_P[:, None] * y_PD).T @ y_PD
        self.matrix = decay * self.matrix + one * torch.outer(path_D, path_D) + many * new


class Diagonal:
    """The diagonal of the covariance, C_D."""

    def __init__(self, size: int, like: Tensor) -> None:
        self.matrix = torch.ones(size, dtype=like.dtype, device=like.device)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {"covariance": self.matrix}

    def load(self, state: dict[str, Any]) -> None:
        """Take up `tensors`."""
        self.matrix = state["covariance"]

    def decompose(self) -> None:
        """The square roots."""
        self.roots = torch.where(self.matrix < 0, TINY, self.matrix).sqrt()

    def colour(self, noise_PD: Tensor) -> Tensor:
        """C^(1/2) z for each row."""
        return noise_PD * self.roots

    def whiten(self, y_PD: Tensor) -> Tensor:
        """C^(-1/2) y for each row."""
        return y_PD / self.roots

    def update(self, decay: float, one: float, path_D: Tensor, many: float, weights_P: Tensor, y_PD: Tensor) -> None:
        """The diagonal of decay C + one p p^T + many sum_i w_i y_i y_i^T."""
        self.matrix = decay * self.matrix + one * path_D.square() + many * (weights_P @ y_PD.square())


class Adapting:
    """The mean, step size, covariance and the two paths. The model holds the mean."""

    def __init__(self, config: CMAConfig, models: Mapping[str, nn.Module], rates: Any, covariance: Any) -> None:
        self.config, self.flat, self.updates = config, Flat(models), 0
        vector_D = self.flat.vector()
        self.mean = vector_D.to(precise(vector_D))
        size = len(self.mean)
        self.population = config.size(size)
        self.rates: Rates = rates(self.population, size)
        self.covariance: Full | Diagonal = covariance(size, self.mean)
        change = self.rates.one + self.rates.many  # of the covariance per generation
        self.every = max(1, int(1 / (10 * size * change))) if isinstance(self.covariance, Full) else 1
        self.step_size = config.deviation
        self.path, self.covariance_path = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        self.expected = math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size**2))  # E|N(0, I)|

    @torch.no_grad()
    def step(self, problem: Problem) -> Metrics:
        """One generation. Reports the loss of the model, the lowest of the population, and the step size.

        The covariance is decomposed anew once it can have changed by a tenth.
        """
        loss = loss_of(problem)
        if self.updates % self.every == 0:
            self.covariance.decompose()
        noise_PD = normal(generator_of(problem.noise, self.mean.device), self.mean, self.population, len(self.mean))
        y_PD = self.covariance.colour(noise_PD)
        members_PD = (self.mean + self.step_size * y_PD).to(self.flat.vector())
        losses_P = losses_of(problem, self.flat, members_PD, self.config.batched, self.config.chunk)
        self.tell(y_PD[losses_P.argsort(stable=True)])
        self.flat.set(self.mean)
        return report(loss, losses_P) | {"step_size": self.step_size}

    def tell(self, y_PD: Tensor) -> None:
        """Move the law; y_PD of the members, the best first."""
        rates, size = self.rates, len(self.mean)
        self.updates += 1
        half = self.population // 2
        weights_P = y_PD.new_tensor(rates.weights)
        moved_D = weights_P[:half] @ y_PD[:half]
        self.mean = self.mean + self.step_size * moved_D
        gain = math.sqrt(rates.path * (2 - rates.path) * rates.effective)
        self.path = (1 - rates.path) * self.path + gain * self.covariance.whiten(moved_D[None])[0]
        length = float(self.path.norm())
        growth = math.exp(rates.path / rates.damping * (length / self.expected - 1))
        self.step_size = min(self.step_size * growth, LARGEST)
        usual = length / math.sqrt(1 - (1 - rates.path) ** (2 * (self.updates + 1)))
        steady = float(usual < (1.4 + 2 / (size + 1)) * self.expected)  # h: the path is not too long
        cumulation = rates.covariance_path
        gain = steady * math.sqrt(cumulation * (2 - cumulation) * rates.effective)
        self.covariance_path = (1 - cumulation) * self.covariance_path + gain * moved_D
        lost = rates.one * (1 - steady) * cumulation * (2 - cumulation)
        decay = 1 + lost - rates.one - rates.many * float(weights_P.sum())
        self.covariance.update(decay, rates.one, self.covariance_path, rates.many, weights_P, y_PD)

    def tensors(self) -> list[Tensor]:
        """What it keeps, and what a generation has in memory: draws, steps and members."""
        kept = self.covariance.tensors().values()
        return [
            self.mean,
            self.path,
            self.covariance_path,
            *kept,
            self.mean.new_empty(3 * self.population, len(self.mean)),
        ]

    def state_dict(self) -> dict[str, Any]:
        numbers = {"updates": self.updates, "step_size": self.step_size}
        paths = {"path": self.path, "covariance_path": self.covariance_path}
        return {**numbers, **paths, "mean": self.mean, **self.covariance.tensors()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.step_size = state["updates"], state["step_size"]
        self.path, self.covariance_path = state["path"], state["covariance_path"]
        self.mean = state["mean"]
        self.covariance.load(state)
