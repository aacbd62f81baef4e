"""Gradient descent: a backward pass, gradient clipping, an update of each optimizer at its current learning rate.

SGD     w <- w - eta (g + lambda w), with momentum                        (Robbins and Monro, 1951; Polyak, 1964)
Adam    w <- w - eta m / (sqrt(v) + epsilon), m and v moments of g         (Kingma and Ba, 2015)
AdamW   Adam with w <- (1 - eta lambda) w                                  (Loshchilov and Hutter, 2019)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from sanbu.config import Auto
from sanbu.optimizers.rate import ConstantRate, CosineRate, Rate, RateConfig
from sanbu.optimizers.roles import roles
from sanbu.optimizers.search import Metrics, NotFinite, OptimizerConfig, Problem, Search, clip_norm

Clip = Callable[[Sequence[nn.Parameter], float], float]


class GradientSearch:
    """torch optimizers, each with its own schedule. clip: largest norm of the whole gradient of the player."""

    def __init__(self, pairs: list[tuple[torch.optim.Optimizer, Rate]], clip: float | None) -> None:
        self.pairs, self.clip, self.updates = pairs, clip, 0
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer, _ in pairs]

    def step(self, problem: Problem) -> Metrics:
        """Backward, clip, update. Reports the gradient norm if clipped, and the first optimizer's learning rate."""
        return self.follow(problem.backward(), problem.round, problem.clip)

    def follow(self, metrics: Metrics, round: int | None, clip: Clip = clip_norm) -> Metrics:
        """Clip and update by the gradient that the parameters hold; adds to the metrics."""
        if self.clip is not None:
            parameters = [p for optimizer, _ in self.pairs for group in optimizer.param_groups for p in group["params"]]
            metrics["gradient_norm"] = clip(parameters, self.clip)
            if not math.isfinite(metrics["gradient_norm"]):
                raise NotFinite(f"the gradient became NaN or infinite (norm {metrics['gradient_norm']})")
        step = self.updates if round is None else round
        for (optimizer, rate), peaks in zip(self.pairs, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate(step)
            optimizer.step()
        self.updates += 1
        metrics["learning_rate"] = self.pairs[0][0].param_groups[0]["lr"]
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "optimizers": [optimizer.state_dict() for optimizer, _ in self.pairs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for (optimizer, _), saved in zip(self.pairs, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


Modules = Mapping[str, nn.Module]


def parameters(models: Modules) -> list[nn.Parameter]:
    """The parameters of these modules, each once."""
    every = {id(parameter): parameter for module in models.values() for parameter in module.parameters()}
    return list(every.values())


Peak = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class SGD(OptimizerConfig):
    """Stochastic gradient descent with momentum (Robbins and Monro, 1951; Polyak, 1964)."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = Field(0.1, gt=0, le=1e6)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    rate: RateConfig = ConstantRate()

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return sgd(self, models, steps)


def sgd(config: SGD, models: Modules, steps: int) -> GradientSearch:
    """w <- w - eta (g + lambda w), with heavy-ball momentum."""
    optimizer = torch.optim.SGD(
        parameters(models), config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return GradientSearch([(optimizer, config.rate.build(steps))], config.clip)


class Adam(OptimizerConfig):
    """Adaptive moments (Kingma and Ba, 2015)."""

    kind: Literal["adam"] = "adam"
    learning_rate: Peak | Auto = "auto"
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    rate: RateConfig = ConstantRate()

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return adam(self, models, steps)


def adam(config: Adam, models: Modules, steps: int) -> GradientSearch:
    """Adam with one group for all parameters."""
    optimizer = torch.optim.Adam(
        parameters(models), number(config.learning_rate), betas=config.betas, eps=config.epsilon, fused=True
    )
    return GradientSearch([(optimizer, config.rate.build(steps))], config.clip)


class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); vectors are not decayed."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: Peak | Auto = "auto"
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm")
    rate: RateConfig = CosineRate()
    roles: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="factor of the learning rate by role: embedding, head, matrix, vector"
    )

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return adamw(self, models, steps)


def adamw(config: AdamW, models: Modules, steps: int) -> GradientSearch:
    """AdamW with one parameter group per role; vectors are not decayed."""
    return GradientSearch([(adamw_optimizer(config, roles(models)), config.rate.build(steps))], config.clip)


def adamw_optimizer(config: AdamW, by_role: dict[str, list[nn.Parameter]]) -> torch.optim.AdamW:
    """Fused AdamW of torch with one parameter group per role."""
    rate = number(config.learning_rate)
    groups = [
        {
            "params": members,
            "lr": rate * config.roles.get(role, 1.0),
            "weight_decay": 0.0 if role == "vector" else config.weight_decay,
        }
        for role, members in by_role.items()
        if members
    ]
    return torch.optim.AdamW(groups, rate, betas=config.betas, eps=config.epsilon, fused=True)


def number(rate: float | str) -> float:
    """The learning rate, which Recipe.resolve must have set. Raises ValueError for `auto`."""
    if isinstance(rate, str):
        raise ValueError("learning_rate is still 'auto': resolve the recipe first")
    return rate
