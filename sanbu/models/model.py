"""The contract of step 1: a model config names a set of functions; `build` gives one of them with initial weights.

A model is a plain `nn.Module`. Everything that training needs goes through `forward`; a cache is an argument, noise is
an input. A model knows no device, rank, file, objective or data set. Automatic learning rate and batch size follow
from its `width`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import Choice
from sanbu.space import Space

Weights = dict[str, Tensor]


class ModelConfig(Choice):
    """Step 1: a set of functions; its parameters name one of them."""

    table: ClassVar[str] = "sanbu.models:KINDS"

    family: ClassVar[str] = ""  # what the model is called with; objectives and strategies name the families they accept
    measure: ClassVar[str] = ""  # how its runs are evaluated, where not as their data says (DataConfig.measure)
    parents: ClassVar[tuple[str, ...]] = ()  # runs that it cannot do without, by their names in recipe.parents
    searches: ClassVar[
        tuple[str, ...]
    ] = ()  # kinds of search that can find it, of a model without gradient; empty: any

    def build(self, space: Space) -> nn.Module:
        """The module with initial weights, for samples of this space."""
        raise NotImplementedError

    def dial(self) -> int:
        """The width, which sets automatic learning rate and batch size."""
        return getattr(self, "width", 64)

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        """Initial weights from a parent. found: weights of the parent. own: random weights, for names it lacks."""
        return found

    def check(self, space: Space) -> None:
        """Raise ValueError, in one line, if the model cannot be built for the space."""

    def caution(self, space: Space) -> str:
        """One line to say before training where the model can be built but hardly fits the space; otherwise empty."""
        return ""

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        """Inputs for one sample, to count its cost; None if the cost is counted per token."""
        return None


class PictureConfig(ModelConfig):
    """Common fields of picture models; labels enter through an embedding."""

    layers: int = Field(4, ge=1)
    width: int = Field(64, ge=1, description="width; sets automatic learning rate and batch size")

    def check(self, space: Space) -> None:
        if len(space.shape) != 3 or space.vocabulary < 2:
            raise ValueError(
                f"model: this kind draws pictures, but samples of the data have shape {list(space.shape)};"
                " set data=images"
            )


def one_picture(space: Space) -> tuple[Tensor, Tensor]:
    """A picture and its label on the meta device."""
    with torch.device("meta"):
        return torch.zeros(1, *space.shape), torch.zeros(1, dtype=torch.long)


def divisible(width: int, groups: int) -> None:
    """Raise ValueError if the group norms cannot divide the channels."""
    if width % groups:
        raise ValueError(f"model.width: given {width}, but it must be a multiple of model.groups, {groups}")


class AdaptedConfig(ModelConfig):
    """A model built on a decoder, which can start from the decoder's weights."""

    def check(self, space: Space) -> None:
        self.inside().check(space)

    def dial(self) -> int:
        return self.inside().dial()

    def inside(self) -> ModelConfig:
        """The decoder."""
        raise NotImplementedError


def plain_decoder(config: ModelConfig) -> ModelConfig:
    """The decoder of a config, below whatever adapts it."""
    while isinstance(config, AdaptedConfig):
        config = config.inside()
    return config
