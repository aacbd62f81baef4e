"""What LLaMA and the decoders after it share: grouped queries, rotary positions, RMSNorm, a gated MLP."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field
from torch import nn

from sanbu.config import Positive, added
from sanbu.layers.attention import Attention, Pattern, band, causal
from sanbu.layers.positions import Rotary, ScalingConfig
from sanbu.models.tokens.transformer import Decoder, Embedding, TransformerConfig, initialise
from sanbu.space import Space


class GroupedConfig(TransformerConfig):
    """The fields that these decoders share."""

    key_heads: Positive | Literal["auto"] = Field("auto", description="key and value heads; auto is one per query head")
    head_width: Positive | Literal["auto"] = added("auto", description="width of a head; auto is width / heads")
    hidden: Positive | Literal["auto"] = Field(
        "auto", description="width inside the MLP; auto is 8/3 of the width, a multiple of 256"
    )
    rope_base: float = Field(10000.0, gt=0)
    scaling: ScalingConfig | None = added(None, description="scaling of the rotary positions; none leaves them")
    epsilon: float = Field(1e-5, gt=0, description="epsilon of the norms")
    tied: bool = added(False, description="whether the head shares the matrix of the embedding")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.heads % self.key_size():
            raise ValueError(f"model.key_heads: given {self.key_heads}, but it must divide model.heads, {self.heads}")
        if self.rotated_size() % 2:
            raise ValueError(
                f"model.width: {self.width} over {self.heads} heads is odd; rotary positions need an even head"
            )

    def key_size(self) -> int:
        """The number of key heads."""
        return self.heads if self.key_heads == "auto" else self.key_heads

    def hidden_size(self) -> int:
        """The width inside the MLP."""
        return swiglu_width(self.width) if self.hidden == "auto" else self.hidden

    def rotated_size(self) -> int:
        """The channels of a head that rotary positions turn."""
        return int(self.head_size() * getattr(self, "rotated", 1.0))

    def rotary(self) -> Rotary:
        """The rotary positions."""
        return Rotary(self.rotated_size(), self.rope_base, self.scaling.build() if self.scaling else None)

    def attention(self, bias: bool, **parts: Any) -> Attention:
        """One layer of attention; further parts as in `Attention`."""
        return Attention(self.width, self.heads, self.key_size(), bias, head_width=self.head_size(), **parts)

    def norm(self) -> Callable[[], nn.Module]:
        """The RMSNorm of the residual stream, to be called once for each norm."""
        return partial(nn.RMSNorm, self.width, eps=self.epsilon)


def windowed(window: int | None, layers: int, local: Sequence[int] | None = None) -> list[Pattern]:
    """The pattern of each layer: the last `window` positions in the local layers (None: all), causal elsewhere."""
    if window is None:
        return [causal] * layers
    near = band(window)
    return [near if local is None or layer in local else causal for layer in range(layers)]


def check_layers(path: str, given: Sequence[int], layers: int) -> None:
    """Raise ValueError unless each number is a layer."""
    wrong = next((layer for layer in given if not 0 <= layer < layers), None)
    if wrong is not None:
        raise ValueError(f"{path}: given layer {wrong}, allowed: 0 to {layers - 1}")


def grouped(config: GroupedConfig, space: Space, blocks: list[nn.Module]) -> Decoder:
    """The decoder of these blocks, with a last RMSNorm; the residual branches start smaller by sqrt(2 layers)."""
    head = nn.Linear(config.width, space.vocabulary, bias=False)
    embedding = Embedding(space.vocabulary, config.width)
    return finished(config, Decoder(embedding, blocks, config.norm()(), head, config.context))


def finished(config: GroupedConfig, model: Decoder) -> Decoder:
    """The decoder with initial weights, tied if the config says so."""
    if config.tied:
        model.tie()
    initialise(model, 0.02, 0.02 / (2 * config.layers) ** 0.5)
    return model


def swiglu_width(width: int) -> int:
    """8/3 of the width, rounded up to a multiple of 256: as many parameters as an MLP of 4 x width without a gate."""
    return math.ceil((8 * width // 3) / 256) * 256
