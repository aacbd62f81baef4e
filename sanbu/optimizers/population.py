"""What searches without a gradient share: parameters as one vector, members of a population, their losses and ranks.

Only `problem.value` is asked, so an objective may be anything that can be computed. P members, D parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from sanbu.config import SanbuError
from sanbu.noise import Noise
from sanbu.optimizers.search import NotFinite, Problem

Batched = Literal["auto", "vmap", "loop"]
PLAIN = (  # layers that vmap computes for a whole population at once, and gains
    nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Flatten, nn.Identity, nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh,
    nn.Sigmoid,
)  # fmt: skip
UNFIT = (nn.RNNBase, nn.modules.batchnorm._BatchNorm)  # it has no rule for them, or they keep statistics


class Flat:
    """The parameters of modules as one vector; tied parameters count once."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = dict(modules)
        every = {id(p): p for module in self.modules.values() for p in module.parameters()}
        self.parameters = list(every.values())
        self.sizes = [parameter.numel() for parameter in self.parameters]
        if not self.parameters:
            raise SanbuError("optimizer: the model has no parameters to search; use optimizer=closed-form or boosting")

    def vector(self) -> Tensor:
        """A copy of all parameters, [D]."""
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters])

    @torch.no_grad()
    def set(self, vector_D: Tensor) -> None:
        """Put the values of a vector into the modules."""
        for parameter, part in zip(self.parameters, vector_D.split(self.sizes), strict=True):
            parameter.copy_(part.view_as(parameter))

    def calls(self, vector_D: Tensor) -> dict[str, Callable[..., Any]]:
        """Each module as a function with the parameters of a vector."""
        parts = vector_D.split(self.sizes)
        values = {id(p): part.view_as(p) for p, part in zip(self.parameters, parts, strict=True)}
        return {name: partial(called, module, values) for name, module in self.modules.items()}


def called(module: nn.Module, values: Mapping[int, Tensor], *inputs: Any, **named: Any) -> Any:
    """The output of a module with other values of its parameters, by the identity of each."""
    own = {name: values[id(parameter)] for name, parameter in module.named_parameters(remove_duplicate=False)}
    return functional_call(module, own, inputs, named, tie_weights=False)


@torch.no_grad()
def losses_of(problem: Problem, flat: Flat, members_PD: Tensor, batched: Batched, chunk: int) -> Tensor:
    """The loss of each member on the turn's batch, [P]; what is not finite counts as infinite.

    Raises NotFinite if no member has a finite loss.
    """
    if batched == "vmap" or (batched == "auto" and all(map(gains, flat.modules.values()))):
        check_vmap(flat)
        value = lambda vector_D: problem.value(flat.calls(vector_D))  # noqa: E731
        found_P = vmap(value, chunk_size=chunk)(members_PD)
    else:
        found_P = one_by_one(problem, flat, members_PD)
    found_P = torch.where(found_P.isfinite(), found_P, torch.inf).double()
    if not bool(found_P.isfinite().any()):
        raise NotFinite(f"the loss of {problem.turn.player!r} is NaN or infinite for every member of the population")
    return found_P


def one_by_one(problem: Problem, flat: Flat, members_PD: Tensor) -> Tensor:
    """The loss of each member, put into the modules one after another, which are left as they were."""
    before, found = flat.vector(), []
    for vector_D in members_PD:
        flat.set(vector_D)
        found.append(problem.value())
    flat.set(before)
    return torch.stack(found)


def gains(module: nn.Module) -> bool:
    """Whether every layer of a module is one that vmap speeds up."""
    leaves = [part for part in module.modules() if not list(part.children())]
    idle = lambda part: isinstance(part, nn.Dropout) and (part.p == 0 or not part.training)  # noqa: E731
    return all(isinstance(part, PLAIN) or idle(part) for part in leaves)


def check_vmap(flat: Flat) -> None:
    """Raise SanbuError for layers that vmap cannot compute."""
    for module in flat.modules.values():
        for part in module.modules():
            if isinstance(part, UNFIT) or (isinstance(part, nn.Dropout) and part.training and part.p):
                name = type(part).__name__
                raise SanbuError(f"optimizer.batched: given 'vmap', which cannot compute {name}; allowed: auto, loop")


def generator_of(noise: Noise, device: torch.device) -> torch.Generator:
    """A generator seeded by the key of a step: nothing to save, and fast where keyed draws by row are slow."""
    return torch.Generator(device).manual_seed(noise.key & 0x7FFFFFFFFFFFFFFF)


def normal(generator: torch.Generator, like: Tensor, *shape: int) -> Tensor:
    """Standard normals of the type and on the device of `like`."""
    return torch.randn(*shape, generator=generator, dtype=like.dtype, device=like.device)


def average_ranks(losses_P: Tensor) -> Tensor:
    """The rank of each loss, 0 for the lowest; equal losses share the mean of their ranks. float64."""
    below_P = (losses_P[None] < losses_P[:, None]).sum(1)
    equal_P = (losses_P[None] == losses_P[:, None]).sum(1)
    return below_P.double() + (equal_P.double() - 1) / 2


def centred_ranks(losses_P: Tensor) -> Tensor:
    """Ranks from -1/2 (lowest loss) to 1/2, float64; 0 where all losses are equal."""
    return average_ranks(losses_P) / max(len(losses_P) - 1, 1) - 0.5


def expected_by_rank(losses_P: Tensor, by_rank_P: Tensor) -> Tensor:
    """The weight of each member, from weights by rank; equal losses share the mean of theirs."""
    order = losses_P.argsort(stable=True)
    found_P = torch.empty_like(by_rank_P)
    found_P[order] = by_rank_P
    same_PP = (losses_P[None] == losses_P[:, None]).to(by_rank_P.dtype)
    return same_PP @ found_P / same_PP.sum(1)
