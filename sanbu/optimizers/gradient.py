"""Gradient search: one backward pass, a clip, one update of each optimizer at the rate of the moment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sanbu.optimizers import kinds
from sanbu.optimizers.muon import Muon
from sanbu.optimizers.rate import Rate
from sanbu.optimizers.roles import roles
from sanbu.optimizers.search import Metrics, NotFinite, Problem


class GradientSearch:
    """torch optimizers, each with its own rate; `clip` bounds the norm of the whole gradient of the player."""

    def __init__(self, pairs: list[tuple[torch.optim.Optimizer, Rate]], clip: float | None) -> None:
        self.pairs, self.clip, self.updates = pairs, clip, 0
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer, _ in pairs]

    def step(self, problem: Problem) -> Metrics:
        """Backward, clip, update. Reports the gradient norm where it is clipped, and the rate of the first optimizer."""
        metrics = problem.backward()
        if self.clip is not None:
            parameters = [p for optimizer, _ in self.pairs for group in optimizer.param_groups for p in group["params"]]
            metrics["gradient_norm"] = float(nn.utils.clip_grad_norm_(parameters, self.clip))
            if not math.isfinite(metrics["gradient_norm"]):
                raise NotFinite(f"the gradient is no longer a number (norm {metrics['gradient_norm']})")
        moment = self.updates if problem.round is None else problem.round
        for (optimizer, rate), peaks in zip(self.pairs, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate(moment)
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
    """Every parameter of these modules, once."""
    return list({id(p): p for module in models.values() for p in module.parameters()}.values())


def sgd(config: kinds.SGD, models: Modules, steps: int) -> GradientSearch:
    """w <- w - eta (g + lambda w), with heavy-ball momentum."""
    optimizer = torch.optim.SGD(
        parameters(models), config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return GradientSearch([(optimizer, config.rate.build(steps))], config.clip)


def adam(config: kinds.Adam, models: Modules, steps: int) -> GradientSearch:
    """Adam over every parameter alike."""
    optimizer = torch.optim.Adam(
        parameters(models), number(config.learning_rate), betas=config.betas, eps=config.epsilon, fused=True
    )
    return GradientSearch([(optimizer, config.rate.build(steps))], config.clip)


def adamw(config: kinds.AdamW, models: Modules, steps: int) -> GradientSearch:
    """AdamW with a group a role; vectors are not decayed."""
    return GradientSearch([(adamw_optimizer(config, roles(models)), config.rate.build(steps))], config.clip)


def muon(config: kinds.Muon, models: Modules, steps: int) -> GradientSearch:
    """Muon for the matrices, AdamW for embeddings, heads and vectors."""
    by_role = roles(models)
    matrices = by_role.pop("matrix")
    pairs: list[tuple[torch.optim.Optimizer, Rate]] = []
    if matrices:
        optimizer = Muon(matrices, config.learning_rate, config.momentum, config.weight_decay)
        pairs.append((optimizer, config.rate.build(steps)))
    if any(by_role.values()):
        pairs.append((adamw_optimizer(config.rest, by_role), config.rest.rate.build(steps)))
    return GradientSearch(pairs, config.rest.clip)


def adamw_optimizer(config: kinds.AdamW, by_role: dict[str, list[nn.Parameter]]) -> torch.optim.AdamW:
    """torch's fused AdamW with one parameter group a role."""
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
    """A resolved rate; `auto` is turned into a number by Recipe.resolve before anything is built."""
    if isinstance(rate, str):
        raise ValueError("learning_rate is still 'auto': resolve the recipe first")
    return rate
