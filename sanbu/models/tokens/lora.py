"""LoRA: y = x W + (alpha / rank) (x A) B, where only A and B are trained (Hu and others, 2022).

Frozen weights become buffers under the same names, so no optimizer sees them. B starts at zero, so the adapted model
first computes the same as the base model.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.models.model import AdaptedConfig, ModelConfig, Weights
from sanbu.models.tokens.modern import Modern
from sanbu.models.tokens.transformer import Decoder, TransformerConfig
from sanbu.space import Space


class LowRank(nn.Linear):
    """A frozen linear layer plus a low-rank change."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        freeze(self, {})
        self.scale = alpha / rank
        self.lora_down = nn.Parameter(self.weight.new_empty(rank, layer.in_features))
        self.lora_up = nn.Parameter(self.weight.new_zeros(layer.out_features, rank))
        nn.init.normal_(self.lora_down, std=layer.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        change = F.linear(F.linear(x, self.lora_down), self.lora_up)
        return super().forward(x) + self.scale * change


class LoRA(AdaptedConfig):
    """A frozen decoder with a low-rank change to each linear layer of its blocks (Hu and others, 2022)."""

    kind: Literal["lora"] = "lora"
    family: ClassVar[str] = "tokens"
    base: TransformerConfig = Modern()
    rank: int = Field(8, ge=1, description="rank of the change")
    alpha: float = Field(16.0, gt=0, description="the change is scaled by alpha / rank")

    @classmethod
    def adopt(cls, replaced: Any) -> dict[str, Any]:
        return {"base": replaced} if isinstance(replaced, dict) and is_decoder(replaced) else {}

    def inside(self) -> ModelConfig:
        return self.base

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        return own | found

    def build(self, space: Space) -> nn.Module:
        decoder: Any = self.base.build(space)
        return add_low_rank(decoder, self.rank, self.alpha)


def is_decoder(values: dict[str, Any]) -> bool:
    """Whether dumped values are those of a plain decoder."""
    kind = TransformerConfig.find(str(values.get("kind")))
    return kind is not None and issubclass(kind, TransformerConfig)


def add_low_rank(model: Decoder, rank: int, alpha: float) -> Decoder:
    """Add a low-rank change to each linear layer of the blocks and freeze everything else. Modifies the decoder."""
    for block in model.blocks.values():
        for module in list(block.modules()):
            for name, layer in list(module.named_children()):
                if type(layer) is nn.Linear:
                    setattr(module, name, LowRank(layer, rank, alpha))
    frozen: dict[Tensor, Tensor] = {}
    for module in model.modules():
        if not isinstance(module, LowRank):
            freeze(module, frozen)
    return model


def freeze(module: nn.Module, frozen: dict[Tensor, Tensor]) -> None:
    """Turn a module's own parameters into buffers. frozen: those so far, so that tied parameters become one buffer."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        del module._parameters[name]
        module.register_buffer(name, frozen.setdefault(parameter, parameter.detach()))


@torch.no_grad()
def merge_low_rank(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a plain decoder that computes the same as this adapted one. weights: of the adapted one."""
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith((".lora_down", ".lora_up"))}
    for name, layer in model.named_modules():
        if isinstance(layer, LowRank):
            plain[f"{name}.weight"] = layer.weight + layer.scale * layer.lora_up @ layer.lora_down
    return plain
