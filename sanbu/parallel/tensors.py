"""Tensor parallelism of transformers: each rank has some heads and some of the hidden units (Shoeybi and others, 2019).

query, key, value, gate, up    rows of the matrix: outputs are divided, and stay so
out, down                      columns: inputs are divided, outputs are summed over ranks
embedding, head                rows of the vocabulary

With `sequence`, activations between these matrices are divided by position; sums become sums of parts and gathering
(Korthikanti and others, 2022). parallelize_module of torch does the work; the plan is data: path -> word of STYLES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    parallelize_module,
)

from sanbu.config import SanbuError
from sanbu.layers.attention import Attention
from sanbu.machine import column_major, local
from sanbu.models.tokens.transformer import Decoder
from sanbu.noise import key
from sanbu.parallel.world import World

Plan = dict[str, str]
STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "rows": ColwiseParallel,
    "columns": RowwiseParallel,
    "columns, by position": lambda: RowwiseParallel(output_layouts=Shard(1)),
    "vocabulary": lambda: RowwiseParallel(input_layouts=Replicate()),
    "logits": lambda: ColwiseParallel(output_layouts=Replicate()),
    "logits, by position": lambda: ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
    "divide": lambda: PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=Shard(1)),
    "gather": lambda: PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate()),
    "gather first": lambda: PrepareModuleInput(
        input_layouts=(Shard(1), None, None), desired_input_layouts=(Replicate(), None, None)
    ),
}


def plan_of(decoder: Decoder, sequence: bool) -> Plan:
    """What becomes of each matrix of a transformer."""
    after = ", by position" if sequence else ""
    plan = {"embedding.tokens": "vocabulary", "head": "logits" + after}
    plan |= {"embedding": "divide"} if sequence else {}
    for path, attention, mlp in parts(decoder):
        plan |= {f"{path}.attention.{name}": "rows" for name in ("query", "key", "value")}
        plan |= {f"{path}.mlp.{name}": "rows" for name in ("gate", "up") if hasattr(mlp, name)}
        plan |= {f"{path}.attention.out": "columns" + after, f"{path}.mlp.down": "columns" + after}
        plan |= {f"{path}.attention": "gather first", f"{path}.mlp": "gather"} if sequence else {}
    return plan


def parts(decoder: Decoder) -> Iterator[tuple[str, Any, Any]]:
    """The path, attention and MLP of each block."""
    for path, module in decoder.named_modules():
        attention, mlp = getattr(module, "attention", None), getattr(module, "mlp", None)
        if isinstance(attention, Attention) and mlp is not None:
            yield path, attention, mlp


def divide_matrices(world: World, model: nn.Module) -> list[str]:
    """Divide the matrices of every transformer in a model; names of parameters with gradients that are sums over ranks.

    They are names, because what divides weights later puts other parameters in the place of these.
    """
    decoders = [module for module in model.modules() if isinstance(module, Decoder)]
    if not decoders:
        given, kind = world.degrees.tensor, type(model).__name__
        raise SanbuError(f"layout.tensor: given {given}, but {kind} has no plan to divide its matrices; allowed: 1")
    sequence = world.layout.sequence == "on"
    found: set[int] = set()
    for decoder in decoders:
        check_widths(decoder, world.degrees.tensor)
        tied = decoder.head.weight is decoder.embedding.tokens.weight
        plan = plan_of(decoder, sequence)
        parallelize_module(decoder, world.part("tensor"), {path: STYLES[word]() for path, word in plan.items()})
        if tied:
            decoder.tie()
        for _, attention, _ in parts(decoder):
            for projection in (attention.query, attention.key, attention.value):
                projection.out_features //= world.degrees.tensor
            attention.register_forward_pre_hook(own_dropout(world.place.tensor))
            attention.register_forward_hook(common_dropout)
        if sequence:
            decoder.blocks["0"].register_forward_pre_hook(dropout_by_position(world.place.tensor))
        found |= {id(parameter) for parameter in summed(decoder, sequence)}
    return [name for name, parameter in model.named_parameters() if id(parameter) in found]


def cut_matrices(decoder: Decoder, rank: int, ranks: int) -> None:
    """Keep one rank's part of the matrices of a transformer that is not trained, in place.

    Embedding and head stay whole. Then `out` and `down` give parts of sums over ranks; one rank has their biases.
    """
    check_widths(decoder, ranks)
    for path, word in plan_of(decoder, sequence=False).items():
        linear: Any = decoder.get_submodule(path)
        if word == "rows":
            keep_part([linear.weight, linear.bias, getattr(linear, "lora_up", None)], 0, rank, ranks)
            linear.out_features //= ranks
        elif word == "columns":
            keep_part([linear.weight, getattr(linear, "lora_down", None)], 1, rank, ranks)
            linear.in_features //= ranks
            if linear.bias is not None and rank:
                linear.bias.data = torch.zeros_like(linear.bias)
    column_major(decoder)


def keep_part(tensors: Sequence[Tensor | None], axis: int, rank: int, ranks: int) -> None:
    """Keep one rank's part of these tensors, in place."""
    for tensor in tensors:
        if tensor is not None:
            tensor.data = tensor.data.chunk(ranks, axis)[rank].clone()


def check_widths(decoder: Decoder, ranks: int) -> None:
    """Raise SanbuError, in one line, if heads or hidden units cannot be divided equally."""
    for path, attention, mlp in parts(decoder):
        numbers = {
            "heads": attention.query.out_features // attention.head_width,
            "heads of keys": attention.key.out_features // attention.head_width,
            "hidden units": mlp.up.out_features,
        }
        for what, number in numbers.items():
            if number % ranks:
                raise SanbuError(f"layout.tensor: given {ranks}, but {path} has {number} {what}; allowed: a divisor")


def summed(decoder: Decoder, sequence: bool) -> list[nn.Parameter]:
    """Whole parameters that see only a part of the heads, or of the positions: their gradient is a sum over ranks."""
    inside = [norm for _, attention, _ in parts(decoder) for norm in (attention.query_norm, attention.key_norm)]
    if sequence:
        inside += [*decoder.blocks.values(), decoder.norm]
    every = {id(p): p for module in inside if isinstance(module, nn.Module) for p in module.parameters()}
    return [parameter for parameter in every.values() if not isinstance(parameter, DTensor)]


def sum_gradients(parameters: Sequence[nn.Parameter], group: dist.ProcessGroup) -> None:
    """Sum the gradients of these parameters over the tensor ranks, in place and in one message."""
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat, group=group)
    for gradient, total in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


# -- dropout ----------------------------------------------------------------------------------------------------------


def own_dropout(rank: int) -> Callable[..., None]:
    """A hook before attention: heads of different ranks drop different positions."""

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        attention: Any = module
        if module.training and attention.dropout:
            attention.kept = generator(attention).get_rng_state()
            torch.manual_seed(key(torch.initial_seed(), int(attention.kept.long().sum()), "tensor", rank))

    return before


def generator(module: nn.Module) -> Any:
    """Where the state of the random numbers of a module's device is kept."""
    return torch.cuda if next(module.parameters()).device.type == "cuda" else torch


def dropout_by_position(rank: int) -> Callable[..., None]:
    """A hook before the first layer, where activations are divided by position: from here ranks drop differently."""

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:
            torch.manual_seed(key(torch.initial_seed(), "positions", rank))

    return before


def common_dropout(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
    """A hook after attention: what follows drops the same on all ranks."""
    kept = module.__dict__.pop("kept", None)
    if kept is not None:
        generator(module).set_rng_state(kept)
        torch.rand(1, device=output.device)  # so that the next layer does not begin where this one began
