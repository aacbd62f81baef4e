"""LLaMA (Touvron and others, 2023): RMSNorm, rotary positions, SwiGLU, grouped queries, no biases, untied head."""

from __future__ import annotations

from functools import partial

from torch import nn

from sanbu.data.kinds import Space
from sanbu.layers.attention import Attention
from sanbu.layers.mlp import GatedMLP
from sanbu.layers.positions import Rotary
from sanbu.models import kinds
from sanbu.models.transformer import Decoder, Embedding, PreNorm, initialise


def llama(config: kinds.Llama, space: Space) -> Decoder:
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
    """8/3 of the width, rounded up to a multiple of 256: as many parameters as four times the width without a gate."""
    return -(-(2 * 4 * width // 3) // 256) * 256
