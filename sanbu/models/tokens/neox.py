"""GPT-NeoX (Black and others, 2022), the shape of Pythia: attention and MLP side by side, partly rotated heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.config import Positive
from sanbu.layers.attention import Attention, LayerCache, Sight
from sanbu.layers.mlp import MLP, gelu
from sanbu.layers.positions import Rotary, ScalingConfig
from sanbu.models.tokens.transformer import Decoder, Embedding, PreNorm, TransformerConfig, initialise
from sanbu.space import Space


class Parallel(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x)), both from the same x."""

    def __init__(
        self, norm: Callable[[], nn.Module], attention: Attention, mlp: nn.Module, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm(), attention
        self.mlp_norm, self.mlp = norm(), mlp
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        attended_BTD = self.dropout(self.attention(self.attention_norm(x_BTD), sight, cache))
        return self.dropout(self.mlp(self.mlp_norm(x_BTD))) + attended_BTD + x_BTD


BLOCKS: dict[str, Callable[..., nn.Module]] = {"parallel": Parallel, "sequential": PreNorm}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "gelu-tanh": gelu, "relu": F.relu}


class NeoX(TransformerConfig):
    """Attention and MLP side by side, rotary positions on a part of each head (Black and others, 2022)."""

    kind: Literal["neox"] = "neox"
    hidden: Positive | Literal["auto"] = Field("auto", description="width inside the MLP; auto is 4 times the width")
    rotated: float = Field(0.25, gt=0, le=1, description="fraction of a head that rotary positions turn")
    rope_base: float = Field(10000.0, gt=0)
    scaling: ScalingConfig | None = Field(None, description="scaling of the rotary positions; none leaves them")
    epsilon: float = Field(1e-5, gt=0, description="epsilon of the norms")
    residual: Literal["parallel", "sequential"] = "parallel"
    activation: Literal["gelu", "gelu-tanh", "relu"] = "gelu"
    attention_bias: bool = Field(True, description="biases of the projections of attention")
    dropout: float = Field(0.0, ge=0, lt=1)
    tied: bool = Field(False, description="whether the head shares the matrix of the embedding")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.rotated_size() % 2 or not self.rotated_size():
            raise ValueError(
                f"model.rotated: {self.rotated:g} of {self.head_size()} channels is {self.rotated_size()}; rotary"
                " positions need an even number"
            )

    def rotated_size(self) -> int:
        """The channels of a head that rotary positions turn."""
        return int(self.head_size() * self.rotated)

    def hidden_size(self) -> int:
        """The width inside the MLP."""
        return 4 * self.width if self.hidden == "auto" else self.hidden

    def build(self, space: Space) -> nn.Module:
        return neox(self, space)


def neox(config: NeoX, space: Space) -> Decoder:
    """The decoder of GPT-NeoX-20B and Pythia."""
    width, heads = config.width, config.heads
    norm = partial(nn.LayerNorm, width, eps=config.epsilon)
    rotate = Rotary(config.rotated_size(), config.rope_base, config.scaling.build() if config.scaling else None)
    blocks = [
        BLOCKS[config.residual](
            norm,
            Attention(width, heads, heads, config.attention_bias, rotate=rotate),
            MLP(width, config.hidden_size(), bias=True, activation=ACTIVATIONS[config.activation]),
            config.dropout,
        )
        for _ in range(config.layers)
    ]
    head = nn.Linear(width, space.vocabulary, bias=False)
    embedding = Embedding(space.vocabulary, width, dropout=config.dropout)
    model = Decoder(embedding, blocks, norm(), head, config.context)
    if config.tied:
        model.tie()
    initialise(model, 0.02, 0.02 / (2 * config.layers) ** 0.5)
    return model
