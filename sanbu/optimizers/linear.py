"""The linear part of a forest in closed form: the constant, and a ridge regression where the model has columns for it.

Each step is the weighted least squares of Newton's method, for squared error the exact solution in one step:

    min over a, W of  sum_i h_i (f_i - g_i / h_i - a - W z_i)^2 + penalty |W s|^2,   s: standard deviations of z

A loss without curvature has only the constant. B rows, D columns, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanbu.config import SanbuError
from sanbu.layers.forest import Forest
from sanbu.layers.growing import leaf_values
from sanbu.optimizers.outputs import Look, curvature_at, gradient_at, shifted
from sanbu.optimizers.search import Problem

STEPS, HALVINGS, ENOUGH = 20, 8, 1e-7


def fit_linear(problem: Problem, forest: Forest, penalty: float) -> None:
    """Fill base, center and slope of a forest without trees."""
    curvature_BO = curvature_at(problem, forest)
    look, _ = gradient_at(problem, forest)
    if not bool(curvature_BO.any()):
        if forest.slope.shape[1]:
            raise SanbuError("model.linear: ridge needs an objective with a curvature, such as squared; set it to none")
        forest.base += constant(problem, forest, look)
        return
    before = float(problem.value().detach())
    for _ in range(STEPS):
        after = move(problem, forest, ridge(look, curvature_BO, penalty), before)
        if before - after <= ENOUGH * abs(before):
            return
        before, earlier_BO = after, curvature_BO
        curvature_BO = curvature_at(problem, forest)
        if torch.allclose(curvature_BO, earlier_BO, rtol=1e-5):
            return  # the loss is quadratic
        look, _ = gradient_at(problem, forest)


def constant(problem: Problem, forest: Forest, look: Look) -> Tensor:
    """The shift of all outputs that minimises a loss without curvature."""
    leaf_BO = torch.zeros_like(look.gradient, dtype=torch.long)
    at = lambda shift: gradient_at(problem, forest, shifted(shift))[0].gradient  # noqa: E731
    return leaf_values(look.gradient, torch.zeros_like(look.gradient), leaf_BO, 1, 0.0, at)[0].float()


def ridge(look: Look, curvature_BO: Tensor, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
    """(base_O, center_D, slope_OD) after one step of Newton's method from the outputs of a linear part."""
    h_BO = curvature_BO.double().clamp(min=1e-9 * float(curvature_BO.max()))
    aim_BO = look.outputs.double() - look.gradient.double() / h_BO
    if look.z is None:
        mean_O = (h_BO * aim_BO).sum(0) / h_BO.sum(0)
        return mean_O, mean_O[:0], mean_O[:, None][:, :0]
    z_BD = look.z.double()
    center_D = z_BD.nanmean(0).nan_to_num()
    z_BD = torch.nan_to_num(z_BD - center_D)
    scale_D = z_BD.square().mean(0).sqrt()
    scale_D = torch.where(scale_D > 0, scale_D, 1.0)
    z_BD = z_BD / scale_D
    z_BD = torch.cat((torch.ones_like(z_BD[:, :1]), z_BD), 1)  # the constant is not penalised
    penalty_D = torch.full_like(z_BD[0], penalty + 1e-9 * float(h_BO.sum(0).max()))
    penalty_D[0] = 0
    same = bool((h_BO == h_BO[:, :1]).all())
    weights = h_BO[:, :1] if same else h_BO
    found = [
        torch.linalg.solve(z_BD.T @ (weight_B[:, None] * z_BD) + penalty_D.diag(), z_BD.T @ (weight_B[:, None] * aim))
        for weight_B, aim in zip(weights.T, [aim_BO] if same else aim_BO.T[:, :, None], strict=True)
    ]
    solution_OD = torch.cat(found, 1).T
    return solution_OD[:, 0], center_D, solution_OD[:, 1:] / scale_D


def move(problem: Problem, forest: Forest, aim: tuple[Tensor, Tensor, Tensor], before: float) -> float:
    """Move the linear part to its aim, by half the way and so on while the loss rises. Returns the loss."""
    base_O, center_D, slope_OD = aim
    old_O, old_OD = forest.base.clone(), forest.slope.clone()
    forest.center.copy_(center_D)
    part = 1.0
    for _ in range(HALVINGS):
        forest.base.copy_(old_O + part * (base_O - old_O))
        forest.slope.copy_(old_OD + part * (slope_OD - old_OD))
        after = float(problem.value().detach())
        if after <= before:
            return after
        part /= 2
    forest.base.copy_(old_O)
    forest.slope.copy_(old_OD)
    return before
