"""GPT-1 (Radford and others, 2018), GPT-2 (Radford and others, 2019) and GPT-3 (Brown and others, 2020)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field
from torch import nn

from sanbu.layers.attention import Attention, Pattern, band, causal
from sanbu.layers.mlp import MLP, gelu
from sanbu.models.tokens.transformer import Decoder, Embedding, PostNorm, PreNorm, TransformerConfig, initialise
from sanbu.space import Space


class GPT1(TransformerConfig):
    """Post-norm decoder with learned positions (Radford and others, 2018)."""

    kind: Literal["gpt1"] = "gpt1"
    dropout: float = Field(0.1, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        return gpt1(self, space)


def gpt1(config: GPT1, space: Space) -> Decoder:
    """Post-norm blocks, no last norm, tied head, every weight N(0, 0.02)."""
    model = decoder(config, space, PostNorm, [causal] * config.layers, nn.Identity())
    initialise(model, 0.02, 0.02)
    return model


class GPT2(TransformerConfig):
    """Pre-norm decoder with learned positions (Radford and others, 2019)."""

    kind: Literal["gpt2"] = "gpt2"
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        return gpt2(self, space)


def gpt2(config: GPT2, space: Space) -> Decoder:
    """Pre-norm blocks and a last norm; the residual branches start smaller by sqrt(2 layers)."""
    model = decoder(config, space, PreNorm, [causal] * config.layers, nn.LayerNorm(config.width))
    initialise(model, 0.02, 0.02 / (2 * config.layers) ** 0.5)
    return model


class GPT3(TransformerConfig):
    """GPT-2 with alternating dense and locally banded attention (Brown and others, 2020; Child and others, 2019)."""

    kind: Literal["gpt3"] = "gpt3"
    band: int = Field(128, ge=1, description="positions that a banded layer attends to")
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, space: Space) -> nn.Module:
        return gpt3(self, space)


def gpt3(config: GPT3, space: Space) -> Decoder:
    """GPT-2 whose odd layers attend to a local band only."""
    local = band(config.band)
    patterns = [causal if layer % 2 == 0 else local for layer in range(config.layers)]
    model = decoder(config, space, PreNorm, patterns, nn.LayerNorm(config.width))
    initialise(model, 0.02, 0.02 / (2 * config.layers) ** 0.5)
    return model


def decoder(
    config: GPT1 | GPT2 | GPT3,
    space: Space,
    block: type[PreNorm] | type[PostNorm],
    patterns: list[Pattern],
    norm: nn.Module,
) -> Decoder:
    """What the three have in common: learned positions, biases, GELU at four times the width, tied head."""
    width, heads, dropout = config.width, config.heads, config.dropout
    layer_norm: Callable[[], nn.Module] = partial(nn.LayerNorm, width)
    blocks: list[nn.Module] = [
        block(
            layer_norm,
            Attention(width, heads, heads, bias=True, pattern=pattern, dropout=dropout),
            MLP(width, 4 * width, bias=True, activation=gelu),
            dropout,
        )
        for pattern in patterns
    ]
    embedding = Embedding(space.vocabulary, width, config.context, dropout)
    model = Decoder(embedding, blocks, norm, nn.Linear(width, space.vocabulary, bias=False), config.context)
    model.tie()
    return model
