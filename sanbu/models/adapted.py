"""Kinds of models made over a decoder: one that scores, one that learns little beside frozen weights. Configs only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from sanbu.models.kinds import ModelConfig, Modern, TransformerConfig

if TYPE_CHECKING:
    from torch import nn

    from sanbu.data.kinds import Space
    from sanbu.models.kinds import Weights


class AdaptedConfig(ModelConfig):
    """A model over a decoder, whose weights it can begin from."""

    def check(self, space: Space) -> None:
        self.inside().check(space)

    def dial(self) -> int:
        return self.inside().dial()

    def inside(self) -> ModelConfig:
        """The decoder."""
        raise NotImplementedError


class Scorer(AdaptedConfig):
    """A decoder's trunk and a linear head on its last state at given tokens: a reward, a class, a number."""

    kind: Literal["scorer"] = "scorer"
    family: ClassVar[str] = "scorer"
    trunk: ModelConfig = Modern()
    outputs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="auto: one a class, 1 without classes"
    )

    def inside(self) -> ModelConfig:
        return self.trunk

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        if found.keys() == own.keys():
            return found
        before = {name.removeprefix("trunk."): tensor for name, tensor in own.items() if name.startswith("trunk.")}
        return own | {f"trunk.{name}": tensor for name, tensor in self.trunk.begin_from(found, before).items()}

    def build(self, space: Space) -> nn.Module:
        from sanbu.models.scorer import Scorer as Module

        outputs = max(1, space.classes) if self.outputs == "auto" else self.outputs
        return Module(self.trunk.build(space), self.dial(), outputs)  # type: ignore[arg-type]


class LoRA(AdaptedConfig):
    """A decoder whose weights stay, with a low-rank change beside each linear layer of its blocks (Hu and others, 2022)."""

    kind: Literal["lora"] = "lora"
    family: ClassVar[str] = "tokens"
    base: TransformerConfig = Modern()
    rank: int = Field(8, ge=1, description="of the change")
    alpha: float = Field(16.0, gt=0, description="the change is scaled by alpha / rank")

    def inside(self) -> ModelConfig:
        return self.base

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        return own | found

    def build(self, space: Space) -> nn.Module:
        from sanbu.models.lora import adapted

        return adapted(self.base.build(space), self.rank, self.alpha)  # type: ignore[arg-type]
