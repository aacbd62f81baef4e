"""LLaMA (Touvron and others, 2023): RMSNorm, rotary positions, SwiGLU, grouped queries; and Mistral, with a window."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from sanbu.config import Positive, added
from sanbu.layers.mlp import GatedMLP
from sanbu.models.tokens.grouped import GroupedConfig, grouped, windowed
from sanbu.models.tokens.transformer import Decoder, PreNorm
from sanbu.space import Space


class Llama(GroupedConfig):
    """RMSNorm, rotary positions, SwiGLU, grouped queries (Touvron and others, 2023)."""

    kind: Literal["llama"] = "llama"
    attention_bias: bool = added(False, description="biases of the projections of attention")
    mlp_bias: bool = added(False, description="biases of the MLP")

    def build(self, space: Space) -> nn.Module:
        return llama(self, space)


def llama(config: Llama, space: Space) -> Decoder:
    """The decoder of the LLaMA papers."""
    rotate = config.rotary()
    blocks: list[nn.Module] = [
        PreNorm(
            config.norm(),
            config.attention(config.attention_bias, rotate=rotate),
            GatedMLP(config.width, config.hidden_size(), config.mlp_bias),
        )
        for _ in range(config.layers)
    ]
    return grouped(config, space, blocks)


class Mistral(GroupedConfig):
    """LLaMA whose layers attend to a sliding window (Jiang and others, 2023)."""

    kind: Literal["mistral"] = "mistral"
    window: Positive | None = Field(4096, description="positions that a layer attends to; none is all")

    def build(self, space: Space) -> nn.Module:
        return mistral(self, space)


def mistral(config: Mistral, space: Space) -> Decoder:
    """LLaMA with a window. A layer reads back `window` positions, so L layers read back L times as many."""
    rotate = config.rotary()
    blocks: list[nn.Module] = [
        PreNorm(
            config.norm(),
            config.attention(False, rotate=rotate, pattern=pattern),
            GatedMLP(config.width, config.hidden_size()),
        )
        for pattern in windowed(config.window, config.layers)
    ]
    return grouped(config, space, blocks)
