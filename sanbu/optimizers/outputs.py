"""The objective as a function of a forest's outputs: its gradient and its curvature at each row.

A forest has no weights to differentiate. Its outputs are taken as the unknowns instead: whatever the objective does
with them, in however many calls and micro-batches, autograd gives the derivative of the loss in each. B counts the
rows of all calls, O the outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.layers.forest import Forest
from sanbu.optimizers.search import Metrics, Problem
from sanbu.space import row_count

MASK = 2**63 - 1
Change = Callable[[Tensor, int], Tensor]  # outputs of a call, and the number of rows before it -> other outputs


@dataclass(frozen=True)
class Look:
    """x_BF, z_BD (columns of the linear part, if any), outputs_BO, and derivatives of the loss times the rows."""

    x: Tensor
    z: Tensor | None
    outputs: Tensor
    gradient: Tensor
    curvature: Tensor | None = None


def forest_of(models: Mapping[str, nn.Module], kind: str) -> Forest:
    """The forest in the models of a player. Raises SanbuError unless there is one, and nothing else that learns."""
    found = [each for model in models.values() for each in model.modules() if isinstance(each, Forest)]
    if len(found) != 1 or any(True for model in models.values() for _ in model.parameters()):
        given = ", ".join(f"{name} {type(model).__name__}" for name, model in models.items())
        raise SanbuError(
            f"optimizer: {kind} grows a forest, but the models to train are: {given}; set model=trees or"
            " model=tree-denoiser"
        )
    return found[0]


Call = tuple[Tensor, Tensor | None, Tensor]


@contextmanager
def recording(forest: Forest, change: Change | None = None) -> Iterator[list[Call]]:
    """Collect (x, z, outputs) of each call of the forest; the outputs are leaves of autograd. Nothing runs compiled."""
    calls: list[Call] = []
    before = 0

    def record(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        nonlocal before
        outputs = outputs.detach()
        taken = (outputs if change is None else change(outputs, before)).requires_grad_()
        before += len(outputs)
        calls.append((inputs[0], inputs[1] if forest.slope.shape[1] else None, taken))
        return taken

    handle = forest.register_forward_hook(record)
    try:
        with eagerly(), torch.enable_grad():
            yield calls
    finally:
        handle.remove()


def eagerly() -> AbstractContextManager[Any]:
    """Without compiled code, which does not see hooks."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def gradient_at(problem: Problem, forest: Forest, change: Change | None = None) -> tuple[Look, Metrics]:
    """The gradient at the outputs, and the metrics of the loss. Raises SanbuError if the loss asks for no output."""
    with recording(forest, change) as calls:
        metrics = problem.backward()
    used = [call for call in calls if call[2].grad is not None]
    if not used:
        raise SanbuError("optimizer: the loss does not depend on the outputs of the forest, so no tree can lower it")
    rows = row_count(problem.turn.batch)
    columns = [z for _, z, _ in used if z is not None]
    slopes = [outputs.grad for _, _, outputs in used if outputs.grad is not None]
    look = Look(
        x=torch.cat([x for x, _, _ in used]),
        z=torch.cat(columns) if columns else None,
        outputs=torch.cat([outputs.detach() for _, _, outputs in used]),
        gradient=rows * torch.cat(slopes),
    )
    return look, metrics


def curvature_at(problem: Problem, forest: Forest, change: Change | None = None) -> Tensor:
    """The second derivative_BO of the loss in each output, times the rows; 0 where it is negative.

    For random signs s, the expectation of s * (H s) is the diagonal of H. With one sign per row it is exact for each
    output if the rows do not couple. Two draws of signs for all outputs that agree show that the outputs do not couple
    either; else each output is probed alone.
    """
    with recording(forest, change) as calls:
        value = problem.value()
    leaves = [outputs for _, _, outputs in calls]
    gradients = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    pairs = [(leaf, each) for leaf, each in zip(leaves, gradients, strict=True) if each is not None]
    curved = [(leaf, each) for leaf, each in pairs if each.requires_grad]
    rows = row_count(problem.turn.batch)
    if not curved:
        return torch.cat([torch.zeros_like(leaf) for leaf, _ in pairs])
    generator = torch.Generator().manual_seed(problem.noise.key & MASK)
    draws = [[signs(generator, leaf) for leaf, _ in curved] for _ in range(2)]
    first, second = (probe(curved, draw) for draw in draws)
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-6 * float(first.abs().max())):
        first = torch.stack([probe_one(curved, draws[0], output) for output in range(first.shape[1])], 1)
    return (rows * first).clamp(min=0)


def signs(generator: torch.Generator, like: Tensor) -> Tensor:
    """Random signs in the shape of a tensor."""
    return 2 * torch.randint(2, like.shape, generator=generator).to(like) - 1


def probe(pairs: list[tuple[Tensor, Tensor]], draws: list[Tensor]) -> Tensor:
    """s * (H s) for outputs with their gradients, of all calls."""
    leaves, gradients = [leaf for leaf, _ in pairs], [each for _, each in pairs]
    found = torch.autograd.grad(gradients, leaves, draws, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([draw * each for each, draw in zip(found, draws, strict=True)])


def probe_one(pairs: list[tuple[Tensor, Tensor]], draws: list[Tensor], output: int) -> Tensor:
    """The same for one output alone, with a sign per row."""
    only = [torch.zeros_like(draw) for draw in draws]
    for one, draw in zip(only, draws, strict=True):
        one[:, output] = draw[:, output]
    return probe(pairs, only)[:, output]


def shifted(shift_BO: Tensor) -> Change:
    """Outputs plus a shift of each row."""
    return lambda outputs, before: outputs + shift_BO[before : before + len(outputs)]


def replaced(outputs_O: Tensor) -> Change:
    """The same outputs for every row."""
    return lambda outputs, before: outputs_O.to(outputs).expand_as(outputs).clone()
