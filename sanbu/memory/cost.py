"""Cost of a model in parameters, FLOPs and bytes, counted on the meta device, so no weights are allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sanbu.layers.attention import Attention
from sanbu.recipe import Recipe

BYTES = 4  # float32: weights in a run folder, keys and values in the cache on a CPU


@dataclass(frozen=True)
class Cost:
    """parameters: tied weights count once. flops_per_token: training, forward and backward. Bytes: in float32."""

    parameters: int
    flops_per_token: int
    weight_bytes: int
    kv_cache_bytes_per_token: int


@dataclass(frozen=True)
class RowCost:
    """flops_per_row: training on a picture, or on an example of sound; three times the FLOPs of one forward pass."""

    parameters: int
    flops_per_row: int
    weight_bytes: int


def cost(recipe: Recipe) -> Cost | RowCost:
    """The cost of a recipe's model. A training token costs 6 FLOPs per matrix weight and 12 T D per attention layer.

    (Kaplan and others, 2020; the attention term as in PaLM, Chowdhery and others, 2022: over the whole context T.)
    """
    space = recipe.data.space()
    with torch.device("meta"):
        model = recipe.model.build(space)
    parameters = sum(p.numel() for p in model.parameters())
    example = recipe.model.example(space)
    if example is not None:
        return RowCost(parameters, 3 * forward_flops(model, example), parameters * BYTES)
    products = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    attention, cached = 0, 0
    for module in model.modules():
        if isinstance(module, Attention):
            attention += 12 * space.shape[0] * module.query.weight.shape[0]
            cached += 2 * module.key.weight.shape[0]
    return Cost(parameters, 6 * products + attention, parameters * BYTES, cached * BYTES)


def flops_per_row(recipe: Recipe) -> int:
    """FLOPs of one forward and backward pass of one row; 0 for several models, and where they cannot be counted."""
    if recipe.parents or set(recipe.objective.build().players) != {"model"}:
        return 0
    try:
        found = cost(recipe)
    except Exception:  # a user's model may not build on the meta device, which must not end a training
        return 0
    return found.flops_per_row if isinstance(found, RowCost) else found.flops_per_token * recipe.data.space().shape[0]


def forward_flops(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """FLOPs of one row through a model on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(*(tensor.to("meta") for tensor in inputs))
    return int(counter.get_total_flops())
