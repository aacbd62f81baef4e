"""A decoder's trunk with a linear head at chosen tokens (Radford and others, 2018; Ziegler and others, 2019)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.models.model import AdaptedConfig, ModelConfig, Weights
from sanbu.models.tokens.modern import Modern
from sanbu.models.tokens.transformer import Decoder
from sanbu.space import Space


class Scorer(AdaptedConfig):
    """A decoder's trunk and a linear head on its last state at given tokens: a reward, a class, a number."""

    kind: Literal["scorer"] = "scorer"
    family: ClassVar[str] = "scorer"
    trunk: ModelConfig = Modern()
    outputs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="number of outputs; auto is one per class, or 1 without classes"
    )

    @classmethod
    def adopt(cls, replaced: Any) -> dict[str, Any]:
        kind = ModelConfig.find(str(replaced.get("kind"))) if isinstance(replaced, dict) else None
        return {"trunk": replaced} if kind is not None and kind.family == "tokens" else {}

    def inside(self) -> ModelConfig:
        return self.trunk

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        if found.keys() == own.keys():
            return found
        before = {name.removeprefix("trunk."): tensor for name, tensor in own.items() if name.startswith("trunk.")}
        return own | {f"trunk.{name}": tensor for name, tensor in self.trunk.begin_from(found, before).items()}

    def build(self, space: Space) -> nn.Module:
        outputs = max(1, space.classes) if self.outputs == "auto" else self.outputs
        trunk: Any = self.trunk.build(space)
        return ScorerNetwork(trunk, self.dial(), outputs)


class ScorerNetwork(nn.Module):
    """tokens_NT -> scores. The head starts at zero, so all scores are 0 before training."""

    def __init__(self, trunk: Decoder, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.score_head = nn.Linear(width, outputs)
        nn.init.zeros_(self.score_head.weight)
        nn.init.zeros_(self.score_head.bias)

    def forward(self, tokens_NT: Tensor, place_N: Tensor | None = None) -> Tensor:
        """scores_NO at one token of each row, or scores_NTO at all of them."""
        hidden_NTD = self.hidden(tokens_NT)
        if place_N is None:
            return self.score_head(hidden_NTD)
        rows = torch.arange(len(place_N), device=place_N.device)
        return self.score_head(hidden_NTD[rows, place_N])

    def hidden(self, tokens_NT: Tensor) -> Tensor:
        """The trunk's last states, [N, T, D]."""
        return self.trunk(tokens_NT, readout=lambda head, hidden: hidden)
