"""A small GPT as of 2026, with the parts that training speed records have in common.

RMSNorm without gain, rotary positions, normalised queries and keys, squared ReLU, projections that start at zero, a
learned scalar for the residual stream and for the embedding in each block, tanh soft-capped logits. Sources: Henry
and others 2020 (QK-norm), So and others 2021 (squared ReLU), Gemma 2 2024 (soft-cap), the nanoGPT speed runs
2024-2026.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.attention import Attention, LayerCache, Sight
from sanbu.layers.mlp import MLP, squared_relu
from sanbu.layers.positions import Rotary
from sanbu.models.tokens.transformer import Decoder, TransformerConfig
from sanbu.space import Space


def rms_norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last axis, no gain."""
    return F.rms_norm(x, (x.shape[-1],))


class FirstNorm(nn.Module):
    """Token embeddings, normalised."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor) -> Tensor:
        return rms_norm(self.tokens(tokens_BT))


class ScaledBlock(nn.Module):
    """x <- a x + f(norm(x)) for attention and then for the MLP, with a learned scalar a for each branch."""

    def __init__(self, attention: Attention, mlp: nn.Module) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.residual = nn.Parameter(torch.ones(2))

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        x_BTD = self.residual[0] * x_BTD + self.attention(rms_norm(x_BTD), sight, cache)
        return self.residual[1] * x_BTD + self.mlp(rms_norm(x_BTD))


class Norm(nn.Module):
    """RMSNorm without gain, as a module."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return rms_norm(x_BTD)


class CappedHead(nn.Linear):
    """cap * tanh(x W / cap)."""

    def __init__(self, width: int, vocabulary: int, cap: float) -> None:
        super().__init__(width, vocabulary, bias=False)
        self.cap = cap

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.cap * torch.tanh(super().forward(x_BTD) / self.cap)


class ModernConfig(TransformerConfig):
    """The fields of `modern` and of what is built on it."""

    cap: float = Field(15.0, gt=0, description="bound of the logits, from tanh soft-capping")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width // self.heads % 2:
            raise ValueError(
                f"model.width: {self.width} over {self.heads} heads is odd; rotary positions need an even head"
            )


class Modern(ModernConfig):
    """RMSNorm, rotary positions, QK-norm, squared ReLU, zero projections, residual scalars, logit soft-cap."""

    kind: Literal["modern"] = "modern"

    def build(self, space: Space) -> nn.Module:
        return modern(self, space)


def modern(config: ModernConfig, space: Space) -> Decoder:
    """The decoder. Matrices start uniform with deviation 1/sqrt(width), output projections and head at zero."""
    width, heads = config.width, config.heads
    rotate = Rotary(width // heads)
    blocks: list[nn.Module] = [
        ScaledBlock(
            Attention(width, heads, heads, bias=False, rotate=rotate, norms=(rms_norm, rms_norm)),
            MLP(width, 4 * width, bias=False, activation=squared_relu),
        )
        for _ in range(config.layers)
    ]
    head = CappedHead(width, space.vocabulary, config.cap)
    model = Decoder(FirstNorm(space.vocabulary, width), blocks, Norm(), head, config.context)
    bound = (3 / width) ** 0.5
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            last = name.endswith((".out", ".down")) or name == "head"
            nn.init.zeros_(module.weight) if last else nn.init.uniform_(module.weight, -bound, bound)
    nn.init.normal_(model.embedding.tokens.weight)
    return model
