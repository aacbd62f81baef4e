"""Phi-3 (Abdin and others, 2024): LLaMA with a window, dropout, and rotary positions on a part of each head."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from sanbu.config import Positive
from sanbu.layers.mlp import GatedMLP
from sanbu.models.tokens.grouped import GroupedConfig, grouped, windowed
from sanbu.models.tokens.transformer import Decoder, PreNorm
from sanbu.space import Space


class Phi3(GroupedConfig):
    """LLaMA with a window, dropout, and rotary positions on a part of each head (Abdin and others, 2024)."""

    kind: Literal["phi3"] = "phi3"
    rotated: float = Field(1.0, gt=0, le=1, description="fraction of a head that rotary positions turn")
    window: Positive | None = Field(None, description="positions that a layer attends to; none is all")
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        return phi3(self, space)


def phi3(config: Phi3, space: Space) -> Decoder:
    """The decoder of Phi-3 mini and medium."""
    rotate = config.rotary()
    blocks: list[nn.Module] = [
        PreNorm(
            config.norm(),
            config.attention(False, rotate=rotate, pattern=pattern),
            GatedMLP(config.width, config.hidden_size()),
            config.dropout,
        )
        for pattern in windowed(config.window, config.layers)
    ]
    return grouped(config, space, blocks)
