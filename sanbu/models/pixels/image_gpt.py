"""Image GPT: a GPT decoder over a sequence of the label and then one token per level (Chen and others, 2020)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.attention import Attention, causal
from sanbu.layers.mlp import MLP, gelu
from sanbu.models.model import PictureConfig, one_picture
from sanbu.models.tokens.transformer import Cache, Decoder, Embedding, PreNorm, initialise
from sanbu.space import Space


class ImageGPT(PictureConfig):
    """The decoder of GPT-2 over pixels."""

    kind: Literal["image-gpt"] = "image-gpt"
    family: ClassVar[str] = "pixels"
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width % self.heads:
            raise ValueError(f"model.width: given {self.width}, but it must be a multiple of model.heads, {self.heads}")

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture.long(), label

    def build(self, space: Space) -> nn.Module:
        return ImageGPTNetwork(self, space)


class ImageGPTNetwork(nn.Module):
    """levels and label -> log p of each level given the levels before it."""

    def __init__(self, config: ImageGPT, space: Space) -> None:
        super().__init__()
        channels, height, across = space.shape
        self.levels, context, width = space.vocabulary, channels * height * across, config.width
        blocks: list[nn.Module] = [
            PreNorm(
                partial(nn.LayerNorm, width),
                Attention(width, config.heads, config.heads, bias=True, pattern=causal),
                MLP(width, 4 * width, bias=True, activation=gelu),
                config.dropout,
            )
            for _ in range(config.layers)
        ]
        embedding = Embedding(self.levels + space.classes + 1, width, context, config.dropout)
        self.decoder = Decoder(
            embedding, blocks, nn.LayerNorm(width), nn.Linear(width, self.levels, bias=False), context
        )
        initialise(self.decoder, 0.02, 0.02 / (2 * config.layers) ** 0.5)

    def forward(self, levels_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """log p(x_chw | all levels before), in nats, [B, C, H, W]; order: rows, columns, channels."""
        line_BT = levels_BCHW.permute(0, 2, 3, 1).flatten(1)
        tokens_BT = torch.cat((label_B[:, None] + self.levels, line_BT[:, :-1]), 1)
        logprob_BTK = self.decoder(tokens_BT).float().log_softmax(-1)
        logprob_BT = logprob_BTK.gather(2, line_BT[..., None])[..., 0]
        B, C, H, W = levels_BCHW.shape
        return logprob_BT.view(B, H, W, C).permute(0, 3, 1, 2)

    def cache(self, rows: int) -> Cache:
        """An empty KV cache for `rows` pictures."""
        return self.decoder.cache(rows, self.decoder.context)

    def next(self, levels_BCHW: Tensor, label_B: Tensor, index: int, cache: Cache) -> Tensor:
        """Logits [B, K] of level number `index`, given the levels before it. Must be called in order."""
        place, channel = divmod(index - 1, levels_BCHW.shape[1])
        row, column = divmod(place, levels_BCHW.shape[3])
        token_B = levels_BCHW[:, channel, row, column] if index else label_B + self.levels
        positions = torch.full_like(token_B, index)[:, None]
        filled = [layer.first(index + 1) for layer in cache]
        return self.decoder(token_B[:, None], positions, filled)[:, -1]
