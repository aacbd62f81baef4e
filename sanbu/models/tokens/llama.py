"""LLaMA (Touvron and others, 2023): RMSNorm, rotary positions, SwiGLU, grouped queries, no biases, untied head."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from pydantic import Field
from torch import nn

from sanbu.config import Positive
from sanbu.layers.attention import Attention
from sanbu.layers.mlp import GatedMLP
from sanbu.layers.positions import Rotary
from sanbu.models.tokens.transformer import Decoder, Embedding, PreNorm, TransformerConfig, initialise
from sanbu.space import Space


class Llama(TransformerConfig):
    """RMSNorm, rotary positions, SwiGLU, grouped queries (Touvron and others, 2023)."""

    kind: Literal["llama"] = "llama"
    key_heads: Positive | Literal["auto"] = Field("auto", description="key and value heads; auto is one per query head")
    hidden: Positive | Literal["auto"] = Field(
        "auto", description="width inside the MLP; auto is 8/3 of the width, a multiple of 256"
    )
    rope_base: float = Field(10000.0, gt=0)
    epsilon: float = Field(1e-5, gt=0, description="epsilon of the norms")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.key_heads != "auto" and self.heads % self.key_heads:
            raise ValueError(f"model.key_heads: given {self.key_heads}, but it must divide model.heads, {self.heads}")
        if self.width // self.heads % 2:
            raise ValueError(
                f"model.width: {self.width} over {self.heads} heads is odd; rotary positions need an even head"
            )

    def build(self, space: Space) -> nn.Module:
        return llama(self, space)


def llama(config: Llama, space: Space) -> Decoder:
    """The decoder of the LLaMA papers."""
    width, heads = config.width, config.heads
    key_heads = heads if config.key_heads == "auto" else config.key_heads
    hidden = swiglu_width(width) if config.hidden == "auto" else config.hidden
    norm = partial(nn.RMSNorm, width, eps=config.epsilon)
    rotate = Rotary(width // heads, config.rope_base)
    blocks: list[nn.Module] = [
        PreNorm(norm, Attention(width, heads, key_heads, bias=False, rotate=rotate), GatedMLP(width, hidden))
        for _ in range(config.layers)
    ]
    head = nn.Linear(width, space.vocabulary, bias=False)
    model = Decoder(Embedding(space.vocabulary, width), blocks, norm(), head, config.context)
    initialise(model, 0.02, 0.02 / (2 * config.layers) ** 0.5)
    return model


def swiglu_width(width: int) -> int:
    """8/3 of the width, rounded up to a multiple of 256: as many parameters as an MLP of 4 x width without a gate."""
    return math.ceil((8 * width // 3) / 256) * 256
