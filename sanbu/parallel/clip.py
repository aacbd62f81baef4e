"""The norm of a gradient that lies on several ranks, and its clipping.

|g|^2 = sum over ranks and parameters of |g on this rank|^2 / (ranks that hold the same elements). So one sum of one
number is enough for every layout, pipelines included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sanbu.machine import local
from sanbu.parallel.world import World, gradient_of


def clip_over_ranks(
    world: World, twice: Callable[[], set[int]], parameters: Sequence[nn.Parameter], limit: float
) -> float:
    """Scale the gradient of these parameters to at most this norm; its norm before.

    twice: the ids of parameters that lie on two stages of a pipeline.
    """
    shared = twice()
    gradients = [gradient_of(parameter) for parameter in parameters if parameter.grad is not None]
    squared = torch.zeros((), dtype=torch.float64, device=world.device)
    for parameter in parameters:
        if parameter.grad is not None:
            held = copies(world, parameter.grad) * (2 if id(parameter) in shared else 1)
            squared += local(parameter.grad).double().square().sum() / held
    dist.all_reduce(squared)
    norm = float(squared.sqrt())
    scale = limit / (norm + 1e-6)
    if scale < 1:
        for gradient in gradients:
            local(gradient).mul_(scale)
    return norm


def copies(world: World, tensor: Tensor) -> int:
    """How many ranks hold the same elements of a parameter or gradient."""
    degrees = world.degrees
    stage = world.size // degrees.pipeline
    if not isinstance(tensor, DTensor):
        return stage
    for number, placement in enumerate(tensor.placements):
        if not placement.is_replicate():
            stage //= tensor.device_mesh.size(number)
    return stage
