"""GPT-1 (Radford and others, 2018), GPT-2 (Radford and others, 2019) and GPT-3 (Brown and others, 2020)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from sanbu.data.kinds import Space
from sanbu.layers.attention import Attention, Pattern, banded, causal
from sanbu.layers.mlp import MLP, gelu
from sanbu.models import kinds
from sanbu.models.transformer import Decoder, Embedding, PostNorm, PreNorm, initialise

Sized = kinds.GPT1 | kinds.GPT2 | kinds.GPT3


def gpt1(config: kinds.GPT1, space: Space) -> Decoder:
    """Post-norm blocks, no last norm, tied head, every weight N(0, 0.02)."""
    model = decoder(config, space, PostNorm, [causal] * config.layers, nn.Identity())
    initialise(model, 0.02, 0.02)
    return model


def gpt2(config: kinds.GPT2, space: Space) -> Decoder:
    """Pre-norm blocks and a last norm; the residual branches start smaller by sqrt(2 layers)."""
    model = decoder(config, space, PreNorm, [causal] * config.layers, nn.LayerNorm(config.width))
    initialise(model, 0.02, 0.02 / (2 * config.layers) ** 0.5)
    return model


def gpt3(config: kinds.GPT3, space: Space) -> Decoder:
    """GPT-2 whose odd layers see a local band only."""
    local = banded(config.band)
    patterns = [causal if layer % 2 == 0 else local for layer in range(config.layers)]
    model = decoder(config, space, PreNorm, patterns, nn.LayerNorm(config.width))
    initialise(model, 0.02, 0.02 / (2 * config.layers) ** 0.5)
    return model


def decoder(
    config: Sized, space: Space, block: type[PreNorm] | type[PostNorm], patterns: list[Pattern], norm: nn.Module
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
