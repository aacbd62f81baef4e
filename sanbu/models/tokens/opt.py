"""OPT (Zhang and others, 2022): GPT-3 with ReLU, and with the norms before or after each branch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from sanbu.config import Positive
from sanbu.layers.attention import Attention
from sanbu.layers.mlp import MLP
from sanbu.models.tokens.transformer import Decoder, Embedding, PostNorm, PreNorm, TransformerConfig, initialise
from sanbu.space import Space

SPARE = 2  # rows of the position table before the first position, as in the published weights


class OPT(TransformerConfig):
    """Learned positions, ReLU, biases, tied head (Zhang and others, 2022)."""

    kind: Literal["opt"] = "opt"
    hidden: Positive | Literal["auto"] = Field("auto", description="width inside the MLP; auto is 4 times the width")
    norms: Literal["before", "after"] = Field("before", description="norms before or after each branch")
    dropout: float = Field(0.1, ge=0, lt=1)
    tied: bool = Field(True, description="whether the head shares the matrix of the embedding")

    def hidden_size(self) -> int:
        """The width inside the MLP."""
        return 4 * self.width if self.hidden == "auto" else self.hidden

    def build(self, space: Space) -> nn.Module:
        return opt(self, space)


def opt(config: OPT, space: Space) -> Decoder:
    """The decoder of OPT; with the norms after each branch it has no last norm."""
    width, heads = config.width, config.heads
    norm: Callable[[], nn.Module] = partial(nn.LayerNorm, width)
    block = PreNorm if config.norms == "before" else PostNorm
    blocks: list[nn.Module] = [
        block(
            norm,
            Attention(width, heads, heads, bias=True),
            MLP(width, config.hidden_size(), bias=True, activation=F.relu),
            config.dropout,
        )
        for _ in range(config.layers)
    ]
    last = norm() if config.norms == "before" else nn.Identity()
    embedding = Embedding(space.vocabulary, width, config.context, offset=SPARE)
    head = nn.Linear(width, space.vocabulary, bias=False)
    model = Decoder(embedding, blocks, last, head, config.context)
    if config.tied:
        model.tie()
    initialise(model, 0.02, 0.02 / (2 * config.layers) ** 0.5)
    return model
