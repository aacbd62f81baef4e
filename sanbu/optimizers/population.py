"""What searches without a gradient share: parameters as one vector, members of a population, their losses and ranks.

Only `problem.value` is asked, so an objective may be anything that can be computed. P members, D parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, vmap

from sanbu.config import Auto, Positive, SanbuError
from sanbu.noise import Noise
from sanbu.optimizers.search import Metrics, NotFinite, OptimizerConfig, Problem

OUTPUTS = {"cpu": 2**20}  # of the widest layer in one forward pass: what fits a cache
MANY = 2**25  # the same on other devices: what keeps them busy


class PopulationConfig(OptimizerConfig):
    """What searches with a population share."""

    population: int = Field(256, ge=2, description="members per generation")
    batched: Literal["auto", "vmap", "loop"] = Field(
        "auto", description="members in one forward pass (vmap) or one by one (loop); auto: what is faster"
    )
    chunk: Positive | Auto = Field("auto", description="members in one forward pass; auto: what fits the cache")

    def size(self, parameters: int) -> int:
        """Members per generation."""
        return self.population

    def evaluations(self, parameters: int) -> int:
        return self.size(parameters) + 1


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
        """A copy of all parameters, [D], in the most precise of their types."""
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters])

    @torch.no_grad()
    def set(self, vector_D: Tensor) -> None:
        """Put the values of a vector into the modules."""
        for parameter, part in zip(self.parameters, vector_D.split(self.sizes), strict=True):
            parameter.copy_(part.view_as(parameter))

    def set_gradient(self, vector_D: Tensor) -> None:
        """Make a vector the gradient of the parameters."""
        for parameter, part in zip(self.parameters, vector_D.split(self.sizes), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter)

    def calls(self, vector_D: Tensor) -> dict[str, Callable[..., Any]]:
        """Each module as a function with the parameters of a vector."""
        parts = zip(self.parameters, vector_D.split(self.sizes), strict=True)
        values = {id(p): part.view_as(p).to(p) for p, part in parts}
        return {name: Called(module, values) for name, module in self.modules.items()}


class Called:
    """A module with other values of its parameters, by the identity of each; other attributes are the module's."""

    def __init__(self, module: nn.Module, values: Mapping[int, Tensor]) -> None:
        self.module, self.values = module, values

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        own = {n: self.values[id(p)] for n, p in self.module.named_parameters(remove_duplicate=False)}
        return functional_call(self.module, own, inputs, named, tie_weights=False)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if isinstance(found, (nn.Module, Tensor)) or inspect.ismethod(found):
            raise RuntimeError(f"{name} of the model is used, which has parameters of its own")
        return found


# -- losses -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def loss_of(problem: Problem) -> float:
    """The loss of the modules as they are; buffers change, as they do in training."""
    return float(problem.value())


@torch.no_grad()
def losses_of(
    problem: Problem, flat: Flat, members_PD: Tensor, batched: str = "auto", chunk: int | str = "auto"
) -> Tensor:
    """The loss of each member on the turn's batch, [P] in float64; what is not finite counts as infinite.

    Parameters and buffers are left as they were. Raises NotFinite if no member has a finite loss.
    """
    with same_buffers(problem) as restore:
        found_P = None if batched == "loop" else at_once(problem, flat, members_PD, batched, chunk)
        if found_P is None:
            found_P = one_by_one(problem, flat, members_PD, restore)
    found_P = torch.where(found_P.isfinite(), found_P, torch.inf).to(precise(found_P))
    if not bool(found_P.isfinite().any()):
        raise NotFinite(f"the loss of {problem.turn.player!r} is NaN or infinite for every member of the population")
    return found_P


def at_once(problem: Problem, flat: Flat, members_PD: Tensor, batched: str, chunk: int | str) -> Tensor | None:
    """The losses by vmap; None where that is not possible or not faster. Raises SanbuError if vmap was asked for."""
    reason = why_one_by_one(flat)
    size = chunk_size(problem, flat) if isinstance(chunk, str) else chunk
    if not reason:
        value = lambda vector_D: problem.value(flat.calls(vector_D))  # noqa: E731
        try:
            found: Tensor = vmap(value, chunk_size=size, randomness="same")(members_PD)  # one mask of dropout for all
            return found
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # if vmap is not at fault, the loop meets the error too
            reason = f"this objective: {str(error).splitlines()[0]}"
    if batched == "vmap":
        raise SanbuError(f"optimizer.batched: given 'vmap', which cannot compute {reason}; allowed: auto, loop")
    return None


def one_by_one(problem: Problem, flat: Flat, members_PD: Tensor, restore: Callable[[], None]) -> Tensor:
    """The loss of each member, put into the modules one after another."""
    before, found = flat.vector(), []
    try:
        for vector_D in members_PD:
            flat.set(vector_D)
            found.append(problem.value())
            restore()
    finally:
        flat.set(before)
    return torch.stack(found)


def why_one_by_one(flat: Flat) -> str:
    """The layer that vmap cannot compute, or computes more slowly; empty if there is none."""
    on_cpu = flat.parameters[0].device.type == "cpu"
    for module in flat.modules.values():
        for part in module.modules():
            kept = isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
            slow = isinstance(part, nn.modules.conv._ConvNd) and on_cpu
            if isinstance(part, nn.RNNBase) or kept or slow:
                return type(part).__name__ + (" on a CPU faster than the loop" if slow else "")
    return ""


def chunk_size(problem: Problem, flat: Flat) -> int:
    """How many members in one forward pass."""
    widest = max(parameter.shape[0] if parameter.ndim else 1 for parameter in flat.parameters)
    outputs = OUTPUTS.get(flat.parameters[0].device.type, MANY)
    return max(1, outputs // (problem.rows_at_once() * widest))


@contextmanager
def same_buffers(problem: Problem) -> Iterator[Callable[[], None]]:
    """A function that gives all buffers their present contents back; it is also called at the end."""
    modules = [module for module in problem.models.values() if isinstance(module, nn.Module)]
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]

    def restore() -> None:
        for buffer, before in kept:
            buffer.copy_(before)

    try:
        yield restore
    finally:
        restore()


def report(loss: float, losses_P: Tensor) -> Metrics:
    """The loss of the model before this generation, and the lowest of the population."""
    lowest = float(losses_P.min())
    return {"loss": loss if torch.tensor(loss).isfinite() else lowest, "lowest": lowest}


# -- noise and ranks --------------------------------------------------------------------------------------------------


def precise(like: Tensor) -> torch.dtype:
    """float64, or float32 on devices that have no float64."""
    return torch.float if like.device.type == "mps" else torch.double


def generator_of(noise: Noise, device: torch.device) -> torch.Generator:
    """A generator seeded by the key of a step: nothing to save, and fast where keyed draws by row are slow."""
    return torch.Generator(device).manual_seed(noise.key & 0x7FFFFFFFFFFFFFFF)


def normal(generator: torch.Generator, like: Tensor, *shape: int) -> Tensor:
    """Standard normals of the type and on the device of `like`."""
    return torch.randn(*shape, generator=generator, dtype=like.dtype, device=like.device)


def average_ranks(losses_P: Tensor) -> Tensor:
    """The rank of each loss, 0 for the lowest; equal losses share the mean of their ranks."""
    _, group_P, sizes = losses_P.unique(return_inverse=True, return_counts=True)
    return (sizes.cumsum(0) - (sizes + 1).to(precise(losses_P)) / 2)[group_P]


def centred_ranks(losses_P: Tensor) -> Tensor:
    """Ranks from -1/2 (lowest loss) to 1/2; 0 where all losses are equal."""
    last = len(losses_P) - 1
    return (average_ranks(losses_P) - last / 2) / max(last, 1)


def expected_by_rank(losses_P: Tensor, by_rank_P: Tensor) -> Tensor:
    """The weight of each member, from weights by rank; equal losses share the mean of theirs."""
    _, group_P, sizes = losses_P.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros_like(by_rank_P[: len(sizes)]).index_add(0, group_P[losses_P.argsort(stable=True)], by_rank_P)
    return (sums / sizes)[group_P]
