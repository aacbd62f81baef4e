"""Gemma 2 (2024) and Gemma 3 (2025): norms before and after each branch, local and global layers, scaled embeddings.

Gemma 2 soft-caps attention scores and logits. Gemma 3 has QK-norm instead, and another rotary base in local layers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sanbu.config import Positive
from sanbu.layers.attention import Attention, LayerCache, Sight, capped_product, dot_product
from sanbu.layers.mlp import GatedMLP, gelu
from sanbu.layers.norms import OffsetRMSNorm
from sanbu.layers.positions import Rotary
from sanbu.models.tokens.grouped import GroupedConfig, check_layers, finished, windowed
from sanbu.models.tokens.modern import CappedHead
from sanbu.models.tokens.transformer import Decoder
from sanbu.space import Space


class ScaledEmbedding(nn.Module):
    """Token embeddings times sqrt(width)."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.tokens, self.scale = nn.Embedding(vocabulary, width), width**0.5

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor) -> Tensor:
        return self.tokens(tokens_BT) * self.scale


class SandwichNorm(nn.Module):
    """x + norm(f(norm(x))), for attention and then for the MLP."""

    def __init__(self, norm: Callable[[], nn.Module], attention: Attention, mlp: nn.Module) -> None:
        super().__init__()
        self.attention_norm, self.attention, self.attended_norm = norm(), attention, norm()
        self.mlp_norm, self.mlp, self.mapped_norm = norm(), mlp, norm()

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        x_BTD = x_BTD + self.attended_norm(self.attention(self.attention_norm(x_BTD), sight, cache))
        return x_BTD + self.mapped_norm(self.mlp(self.mlp_norm(x_BTD)))


class GemmaConfig(GroupedConfig):
    """The fields that Gemma 2 and Gemma 3 share."""

    epsilon: float = Field(1e-6, gt=0, description="epsilon of the norms")
    tied: bool = Field(True, description="whether the head shares the matrix of the embedding")
    window: Positive = Field(4096, description="positions that a local layer attends to")
    local: tuple[int, ...] | Literal["auto"] = Field("auto", description="layers that attend to the window only")
    query_scale: float | Literal["auto"] = Field(
        "auto", description="scores are divided by its square root; auto is the width of a head"
    )
    attention_bias: bool = Field(False, description="biases of the projections of attention")
    cap: float | None = Field(None, gt=0, description="bound of the logits, from tanh soft-capping; none is none")

    def check(self, space: Space) -> None:
        super().check(space)
        check_layers("model.local", self.local_layers(), self.layers)

    def local_layers(self) -> tuple[int, ...]:
        """The layers that attend to the window only."""
        raise NotImplementedError

    def gemma_norm(self) -> Callable[[], nn.Module]:
        """The norm of the residual stream, to be called once for each norm."""
        return partial(OffsetRMSNorm, self.width, self.epsilon)

    def score_scale(self) -> float:
        """The factor of attention scores."""
        return (self.head_size() if self.query_scale == "auto" else self.query_scale) ** -0.5


class Gemma2(GemmaConfig):
    """Local layers at even places, soft-capped scores and logits (Gemma team, 2024)."""

    kind: Literal["gemma2"] = "gemma2"
    cap: float | None = Field(30.0, gt=0, description="bound of the logits, from tanh soft-capping; none is none")
    attention_cap: float | None = Field(50.0, gt=0, description="bound of the attention scores; none is none")

    def local_layers(self) -> tuple[int, ...]:
        return tuple(range(0, self.layers, 2)) if self.local == "auto" else self.local

    def build(self, space: Space) -> nn.Module:
        return gemma2(self, space)


def gemma2(config: Gemma2, space: Space) -> Decoder:
    """The decoder of Gemma 2."""
    product = dot_product if config.attention_cap is None else capped_product(config.attention_cap)
    rotate = config.rotary()
    attentions = [
        config.attention(
            config.attention_bias, rotate=rotate, pattern=pattern, scale=config.score_scale(), product=product
        )
        for pattern in windowed(config.window, config.layers, config.local_layers())
    ]
    return gemma(config, space, attentions)


class Gemma3(GemmaConfig):
    """Five local layers to one global layer, QK-norm, two rotary bases (Gemma team, 2025); text only."""

    kind: Literal["gemma3"] = "gemma3"
    rope_base: float = Field(1_000_000.0, gt=0, description="rotary base of the global layers")
    local_rope_base: float = Field(10_000.0, gt=0, description="rotary base of the local layers")

    def local_layers(self) -> tuple[int, ...]:
        if self.local == "auto":
            return tuple(layer for layer in range(self.layers) if (layer + 1) % 6)
        return self.local

    def build(self, space: Space) -> nn.Module:
        return gemma3(self, space)


def gemma3(config: Gemma3, space: Space) -> Decoder:
    """The text decoder of Gemma 3."""
    near, far, local = Rotary(config.rotated_size(), config.local_rope_base), config.rotary(), config.local_layers()

    def head_norm() -> nn.Module:
        return OffsetRMSNorm(config.head_size(), config.epsilon)

    attentions = [
        config.attention(
            config.attention_bias,
            rotate=near if layer in local else far,
            pattern=pattern,
            norms=(head_norm(), head_norm()),
            scale=config.score_scale(),
        )
        for layer, pattern in enumerate(windowed(config.window, config.layers, local))
    ]
    return gemma(config, space, attentions)


def gemma(config: GemmaConfig, space: Space, attentions: list[Attention]) -> Decoder:
    """The decoder around these layers of attention."""
    norm, hidden = config.gemma_norm(), config.hidden_size()
    blocks: list[nn.Module] = [
        SandwichNorm(norm, attention, GatedMLP(config.width, hidden, activation=gelu)) for attention in attentions
    ]
    plain = nn.Linear(config.width, space.vocabulary, bias=False)
    head = plain if config.cap is None else CappedHead(config.width, space.vocabulary, config.cap)
    embedding = ScaledEmbedding(space.vocabulary, config.width)
    return finished(config, Decoder(embedding, blocks, norm(), head, config.context))
