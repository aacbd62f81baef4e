"""ZeRO: optimizer states, gradients and weights divided over ranks (Rajbhandari and others, 2020).

zero=1  each rank updates some of the parameters and sends them to the others
zero=2  each rank holds a part of every parameter, gradient and state; weights are gathered once per turn
zero=3  weights are gathered block by block, in the forward and in the backward pass

2 and 3 are fully_shard of torch. Gradients are divided after each micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from sanbu.machine import local, submodules
from sanbu.optimizers.gradient import GradientSearch
from sanbu.parallel.world import World


def shard(world: World, module: nn.Module, precision: torch.dtype, whole: bool, rest_whole: bool = False) -> None:
    """Divide the weights of a module, in place: each block by itself, the rest together.

    whole: keep what a pass has gathered until `give_back`. Otherwise it is given back after each pass, because
    weights may be changed without a backward pass, as those of an average are. rest_whole: keep what is not in blocks.
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # a frozen model stores its matrices column by column
    names = ("replicas", "shard") if world.degrees.replicas > 1 else ("shard",)
    half = MixedPrecisionPolicy(precision, torch.float32, None, cast_forward_inputs=False)
    given: dict[str, Any] = {"mesh": world.part(*names)}
    given |= {"mp_policy": half} if precision != torch.float32 else {}
    blocks = [block for part in module.modules() for block in submodules(getattr(part, "blocks", None))]
    for block in blocks:
        fully_shard(block, **given, reshard_after_forward=not whole)
    fully_shard(module, **given, reshard_after_forward=not (whole or rest_whole))
    for part in divided_parts([module]):
        part.gives_back = not (whole or (part is module and rest_whole))
        part.set_reshard_after_backward(not whole, recurse=False)
        part.set_gradient_divide_factor(1.0)  # gradients are sums over rows
        part.set_force_sum_reduction_for_comms(True)


def divided_parts(modules: Iterable[nn.Module]) -> list[Any]:
    """The parts of these modules whose weights are divided together: FSDPModule. gives_back: after a pass."""
    return [part for module in modules for part in module.modules() if isinstance(part, FSDPModule)]


def give_back(modules: Iterable[nn.Module]) -> None:
    """Give back what was gathered of these modules, so that their parameters are the divided ones again."""
    for part in divided_parts(modules):
        part.reshard()


@contextmanager
def keep_gathered(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, what a first pass gathers stays gathered, so that ranks may make different numbers of passes."""
    parts = [part for part in divided_parts(modules) if part.gives_back]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


class DividedUpdates:
    """Zero=1: an optimizer of which each rank has the part for some of the parameters, and then sends these.

    param_groups has all parameters; optim is the part of this rank. ZeroRedundancyOptimizer of torch does the same for
    parameters that are not divided over tensor ranks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, group: dist.ProcessGroup) -> None:
        self.param_groups, self.group, self.defaults = optimizer.param_groups, group, optimizer.defaults
        self.owned = divide_equally(shared(optimizer), dist.get_world_size(group))
        mine = {id(parameter) for parameter in self.owned[dist.get_rank(group)]}
        groups = []
        for each in self.param_groups:
            groups.append({**each, "params": [parameter for parameter in each["params"] if id(parameter) in mine]})
        self.optim = optimizer
        self.optim.param_groups = groups

    def step(self) -> None:
        """Update the parameters of this rank, and exchange them."""
        for own, whole in zip(self.optim.param_groups, self.param_groups, strict=True):
            own["lr"] = whole["lr"]
        self.optim.step()
        work = []
        for rank, parameters in enumerate(self.owned):
            if parameters:
                flat = torch.cat([local(parameter.detach()).flatten() for parameter in parameters])
                source = dist.get_global_rank(self.group, rank)
                work.append((parameters, flat, dist.broadcast(flat, source, self.group, async_op=True)))
        for parameters, flat, sent in work:
            sent.wait()
            pieces = [local(parameter.detach()) for parameter in parameters]
            for piece, found in zip(pieces, flat.split([piece.numel() for piece in pieces]), strict=True):
                piece.copy_(found.view_as(piece))


def shared(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of an optimizer."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def divide_equally(parameters: Sequence[nn.Parameter], parts: int) -> list[list[nn.Parameter]]:
    """Parameters in parts of about equal size: the largest first, each to the part that has least."""
    found: list[list[nn.Parameter]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for parameter in sorted(parameters, key=lambda parameter: -local(parameter).numel()):
        least = sizes.index(min(sizes))
        found[least].append(parameter)
        sizes[least] += local(parameter).numel()
    return found


def divide_updates(world: World, search: GradientSearch) -> None:
    """Divide the parameters of each optimizer over the ranks with other rows, for zero=1."""
    for number, (optimizer, rate) in enumerate(search.pairs):
        search.pairs[number] = (cast(torch.optim.Optimizer, DividedUpdates(optimizer, world.batch)), rate)
