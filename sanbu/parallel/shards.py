"""ZeRO: optimizer states, gradients and weights divided over ranks (Rajbhandari and others, 2020).

zero=1  each rank updates some of the parameters and sends them to the others (ZeroRedundancyOptimizer of torch)
zero=2  each rank holds a part of every parameter, gradient and state; weights are gathered once per turn
zero=3  weights are gathered block by block, in the forward and in the backward pass

2 and 3 are fully_shard of torch. Gradients are divided after each micro-batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer

from sanbu.machine import submodules
from sanbu.optimizers.gradient import GradientSearch
from sanbu.parallel.world import World


def shard(world: World, module: nn.Module, precision: torch.dtype, whole: bool) -> None:
    """Divide the weights of a module, in place: each block by itself, the rest together.

    whole: keep what a pass has gathered until `give_back`. Otherwise it is given back after each pass, because
    weights may be changed without a backward pass, as those of an average are.
    """
    names = ("replicas", "shard") if world.degrees.replicas > 1 else ("shard",)
    half = MixedPrecisionPolicy(precision, torch.float32, None, cast_forward_inputs=False)
    given: dict[str, Any] = {"mesh": world.part(*names)}
    given |= {"mp_policy": half} if precision != torch.float32 else {}
    blocks = [block for part in module.modules() for block in submodules(getattr(part, "blocks", None))]
    for block in blocks:
        fully_shard(block, **given, reshard_after_forward=not whole)
    fully_shard(module, **given, reshard_after_forward=not whole)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_reshard_after_backward(not whole, recurse=False)
            part.set_gradient_divide_factor(1.0)  # gradients are sums over rows
            part.set_force_sum_reduction_for_comms(True)


def give_back(modules: Iterable[nn.Module]) -> None:
    """Give back what was gathered of these modules, so that their parameters are the divided ones again."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()


def divide_updates(world: World, search: GradientSearch) -> None:
    """Divide the parameters of each optimizer over the data ranks, for zero=1."""
    for number, (optimizer, rate) in enumerate(search.pairs):
        kind = type(optimizer)
        known = inspect.signature(kind.__init__).parameters
        defaults = {name: value for name, value in optimizer.defaults.items() if name in known}
        groups = [dict(group) for group in optimizer.param_groups]
        divided = ZeroRedundancyOptimizer(groups, kind, process_group=world.batch, **defaults)
        search.pairs[number] = (divided, rate)
