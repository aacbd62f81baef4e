"""Qwen 2 and 2.5 (Yang and others, 2024): LLaMA with biases of queries, keys and values; Qwen 3 (2025): QK-norm."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from sanbu.config import Positive
from sanbu.layers.mlp import GatedMLP
from sanbu.models.tokens.grouped import GroupedConfig, check_layers, grouped, windowed
from sanbu.models.tokens.transformer import Decoder, PreNorm
from sanbu.space import Space


class QwenConfig(GroupedConfig):
    """The fields that Qwen 2 and Qwen 3 share."""

    epsilon: float = Field(1e-6, gt=0, description="epsilon of the norms")
    window: Positive | None = Field(None, description="positions that a local layer attends to; none is all")
    local: tuple[int, ...] = Field((), description="layers that attend to the window only, counted from 0")

    def check(self, space: Space) -> None:
        super().check(space)
        check_layers("model.local", self.local, self.layers)


class Qwen2(QwenConfig):
    """LLaMA with biases of queries, keys and values (Yang and others, 2024)."""

    kind: Literal["qwen2"] = "qwen2"

    def build(self, space: Space) -> nn.Module:
        return qwen2(self, space)


def qwen2(config: Qwen2, space: Space) -> Decoder:
    """The decoder of Qwen 2 and 2.5."""
    rotate = config.rotary()
    blocks: list[nn.Module] = [
        PreNorm(
            config.norm(),
            config.attention(True, out_bias=False, rotate=rotate, pattern=pattern),
            GatedMLP(config.width, config.hidden_size()),
        )
        for pattern in windowed(config.window, config.layers, config.local)
    ]
    return grouped(config, space, blocks)


class Qwen3(QwenConfig):
    """LLaMA with an RMSNorm of each query and key head (Yang and others, 2025)."""

    kind: Literal["qwen3"] = "qwen3"
    attention_bias: bool = Field(False, description="biases of the projections of attention")

    def build(self, space: Space) -> nn.Module:
        return qwen3(self, space)


def qwen3(config: Qwen3, space: Space) -> Decoder:
    """The dense decoder of Qwen 3."""
    rotate = config.rotary()

    def head_norm() -> nn.Module:
        return nn.RMSNorm(config.head_size(), eps=config.epsilon)

    blocks: list[nn.Module] = [
        PreNorm(
            config.norm(),
            config.attention(config.attention_bias, rotate=rotate, pattern=pattern, norms=(head_norm(), head_norm())),
            GatedMLP(config.width, config.hidden_size()),
        )
        for pattern in windowed(config.window, config.layers, config.local)
    ]
    return grouped(config, space, blocks)
