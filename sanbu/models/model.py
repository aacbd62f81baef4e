"""The contract of step 1: a model config names a set of functions; `build` gives one of them with its first weights.

A model is a plain `nn.Module`. Everything training needs goes through `forward`; a cache is an argument; noise is an
input. It knows no device, rank, file, objective or data set. `width` is the one dial of every family: learning rate
and batch size follow from it.
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

    def build(self, space: Space) -> nn.Module:
        """The function with its first weights, for samples of this space."""
        raise NotImplementedError

    def dial(self) -> int:
        """The width, which sets automatic learning rate and batch size."""
        return getattr(self, "width", 64)

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        """A parent's weights under this model's names; `own` are the first weights, for what the parent lacks."""
        return found

    def check(self, space: Space) -> None:
        """Raise ValueError, in one line, when the model cannot serve the space."""

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        """Inputs of one sample, by which its cost is counted; None where the cost is counted per token."""
        return None


class PictureConfig(ModelConfig):
    """What models of pictures have in common; labels enter through an embedding."""

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
    """Raise ValueError when norms cannot group the channels."""
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
