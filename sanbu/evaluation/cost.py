"""What a model costs, counted on the meta device: no weights are made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sanbu.layers.attention import Attention
from sanbu.recipe import Recipe

BYTES = 4  # float32, as a run stores weights and as the cache holds keys and values on a CPU


@dataclass(frozen=True)
class Cost:
    """parameters: tied weights once. flops_per_token: of training, forward and backward. Bytes are of float32."""

    parameters: int
    flops_per_token: int
    weight_bytes: int
    kv_cache_bytes_per_token: int


def cost(recipe: Recipe) -> Cost:
    """Count a recipe's model. A training token costs 6 FLOPs a matrix weight and 12 T D a layer in attention.

    (Kaplan and others, 2020; the attention term as in PaLM, Chowdhery and others, 2022: over the whole context T.)
    """
    space = recipe.data.space()
    with torch.device("meta"):
        model = recipe.model.build(space)
    parameters = sum(p.numel() for p in model.parameters())
    products = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    attention, cached = 0, 0
    for module in model.modules():
        if isinstance(module, Attention):
            attention += 12 * space.shape[0] * module.query.weight.shape[0]
            cached += 2 * module.key.weight.shape[0]
    return Cost(parameters, 6 * products + attention, parameters * BYTES, cached * BYTES)
