"""Muon: orthogonalised momentum for weight matrices.

M <- mu M + (1 - mu) G
U = (1 - mu) G + mu M                                                              (Nesterov)
W <- (1 - eta lambda) W - eta sqrt(max(1, rows / columns)) polar(U)

polar(U) is approximated by five Newton-Schulz steps. Keller Jordan and others, "Muon: an optimizer for hidden layers in
neural networks", 2024.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.machine import bfloat16_pays
from sanbu.optimizers.gradient import AdamW, GradientSearch, Modules, adamw_optimizer
from sanbu.optimizers.rate import LinearRate, Rate, RateConfig
from sanbu.optimizers.roles import roles
from sanbu.optimizers.search import OptimizerConfig, Search

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
LARGE = 256  # rows and columns; smaller products on a CPU are as fast in float32


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """The approximate polar factor of each matrix, with singular values 0.7 to 1.2; [K, rows, columns] in and out."""
    x = matrices.to(product_type(matrices))
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    wide = 2 * x.shape[-2] <= x.shape[-1] and x.dtype != torch.bfloat16
    x = iterate_gram(x, steps) if wide else iterate(x, steps)
    return (x.mT if tall else x).to(matrices.dtype)


def product_type(matrices: Tensor) -> torch.dtype:
    """The type of the products: bfloat16 where it is faster. The iteration corrects the errors of its own steps."""
    large = min(matrices.shape[-2:]) >= LARGE
    if matrices.is_cuda or (large and not matrices.is_mps and bfloat16_pays("cpu")):
        return torch.bfloat16
    return matrices.dtype


def iterate(x: Tensor, steps: int) -> Tensor:
    """Newton-Schulz steps: x <- (a + b x x^T + c (x x^T)^2) x."""
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def iterate_gram(x: Tensor, steps: int) -> Tensor:
    """The same steps on g = x x^T, since they all are polynomials in g: half the work for wide matrices.

    It needs float32: an eigenvalue of g is the square of a singular value of x.
    """
    a, b, c = COEFFICIENTS
    gram = torch.bmm(x, x.mT)
    whole: Tensor | None = None
    for step in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        whole = polynomial if whole is None else torch.bmm(polynomial, whole)
        if step < steps - 1:
            gram = torch.bmm(polynomial, torch.bmm(polynomial, gram))
    return x if whole is None else torch.bmm(whole, x)


def polar_factors(matrices: list[Tensor]) -> list[Tensor]:
    """The approximate polar factors of tensors of one shape, in one batch; axes after the first are one."""
    found = orthogonalize(torch.stack(matrices).flatten(2))
    return list(found.view(-1, *matrices[0].shape).unbind())


class Muon(OptimizerConfig):
    """Orthogonalised momentum for matrices (Jordan and others, 2024), AdamW for the rest."""

    kind: Literal["muon"] = "muon"
    learning_rate: float = Field(0.02, gt=0, le=1e6)
    momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    rate: RateConfig = LinearRate()
    rest: AdamW = AdamW(weight_decay=0.0, clip=None, rate=LinearRate())

    def resolve(self, rate: float) -> Self:
        return self.model_copy(update={"rest": self.rest.resolve(rate)})

    def build(self, models: Mapping[str, nn.Module], steps: int) -> Search:
        return muon(self, models, steps)


def muon(config: Muon, models: Modules, steps: int) -> GradientSearch:
    """Muon for the matrices, AdamW for embeddings, heads and vectors."""
    by_role = roles(models)
    matrices = by_role.pop("matrix")
    pairs: list[tuple[torch.optim.Optimizer, Rate]] = []
    if matrices:
        optimizer = MuonOptimizer(matrices, config.learning_rate, config.momentum, config.weight_decay)
        pairs.append((optimizer, config.rate.build(steps)))
    if any(by_role.values()):
        pairs.append((adamw_optimizer(config.rest, by_role), config.rest.rate.build(steps)))
    return GradientSearch(pairs, config.rest.clip)


class MuonOptimizer(torch.optim.Optimizer):
    """Muon for parameters of two or more axes; parameters of equal shape are orthogonalised in one batch.

    polar: the polar factors of some matrices of equal shape; several processes put another function here.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        self.polar: Callable[[list[Tensor]], list[Tensor]] = polar_factors
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._step_together(parameters, group["lr"], group["momentum"], group["weight_decay"])

    def _step_together(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        rows, columns = len(parameters[0]), parameters[0][0].numel()
        directions = self.polar(list(torch._foreach_lerp(gradients, buffers, momentum)))
        if weight_decay:
            torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_add_(parameters, directions, alpha=-lr * max(1.0, rows / columns) ** 0.5)
