"""Convolutional networks for pictures (LeCun and others, 1989).

Group norms (Wu and He, 2018) instead of batch norms: a row is then the same alone and in any batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.config import Positive
from sanbu.models.model import Weights, divisible
from sanbu.models.predictors.predictor import PredictorConfig
from sanbu.space import Space

SLOPE = 0.1  # of the rectifier below 0, as in the networks of FixMatch


class PicturePredictor(PredictorConfig):
    """What networks for pictures share."""

    groups: int = Field(8, ge=1, description="groups of the group norms")

    def check(self, space: Space) -> None:
        if len(space.shape) != 3:
            raise ValueError(
                f"model: this kind reads pictures, but samples of the data have shape {list(space.shape)};"
                " set data=few-labels or data=images"
            )

    def example(self, space: Space) -> tuple[Tensor, ...]:
        return (torch.zeros(1, *space.shape, device="meta"),)


class TrunkConfig(PicturePredictor):
    """The convolutions that a classifier and a reconstructor have in common."""

    width: int = Field(32, ge=1, description="channels; sets automatic learning rate and batch size")
    multipliers: tuple[Positive, ...] = Field((1, 2, 2), min_length=1, description="channels / model.width, by layer")

    def check(self, space: Space) -> None:
        super().check(space)
        divisible(self.width, self.groups)


class CNN(TrunkConfig):
    """A few convolutions, and the largest value of each channel anywhere in the picture."""

    kind: Literal["cnn"] = "cnn"

    def build(self, space: Space) -> nn.Module:
        return cnn(self, space.shape[0], self.count_outputs(space))

    def begin_from(self, found: Weights, own: Weights) -> Weights:
        """The trunk of another network; the head is new unless it fits."""
        shared = {name: each for name, each in found.items() if name in own and each.shape == own[name].shape}
        return own | shared if any(name.startswith("trunk.") for name in shared) else found


def cnn(config: CNN, channels: int, outputs: int) -> nn.Sequential:
    """x_BCHW -> scores_BO.

    With few labels, the largest value over pixels learns far more than their mean (docs/few-labels.md).
    """
    model = nn.Sequential()
    model.add_module("trunk", convolutions(channels, config.width, config.multipliers, config.groups))
    model.add_module("largest", nn.AdaptiveMaxPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("head", nn.Linear(config.width * config.multipliers[-1], outputs))
    return model


def convolutions(channels: int, width: int, multipliers: tuple[int, ...], groups: int) -> nn.Sequential:
    """Convolutions of stride 2, the last of stride 1; the first is 5 x 5, the others are 3 x 3."""
    parts: list[nn.Module] = []
    for number, times in enumerate(multipliers):
        wide, kernel = width * times, 3 if number else 5
        stride = 2 if number < len(multipliers) - 1 else 1
        parts.append(nn.Conv2d(channels, wide, kernel, stride, padding=kernel // 2, bias=False))
        parts += [nn.GroupNorm(groups, wide), nn.LeakyReLU(SLOPE)]
        channels = wide
    return nn.Sequential(*parts)


class WideResNet(PicturePredictor):
    """A wide residual network (Zagoruyko and Komodakis, 2016)."""

    kind: Literal["wide-resnet"] = "wide-resnet"
    depth: int = Field(28, description="convolutions on the way: 10, 16, 22, 28, 34, ...")
    width: int = Field(32, ge=1, description="channels of the first stage; sets automatic learning rate and batch size")

    def check(self, space: Space) -> None:
        super().check(space)
        divisible(self.width, self.groups)
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"model.depth: given {self.depth}, allowed: 6 n + 4, as in 10, 16, 22 or 28")

    def build(self, space: Space) -> nn.Module:
        return WideNetwork(self, space.shape[0], self.count_outputs(space))


class WideNetwork(nn.Module):
    """x_BCHW -> scores_BO: three stages of blocks, the second and third at half of the sides before."""

    def __init__(self, config: WideResNet, channels: int, outputs: int) -> None:
        super().__init__()
        widths = [16] + [config.width * times for times in (1, 2, 4)]
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.blocks = nn.ModuleList()
        for stage, (before, wide) in enumerate(pairwise(widths)):
            for number in range((config.depth - 4) // 6):
                stride = 2 if stage and not number else 1
                self.blocks.append(WideBlock(wide if number else before, wide, stride, config.groups))
        self.norm = nn.GroupNorm(config.groups, widths[-1])
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.first(x_BCHW)
        for block in self.blocks:
            x = block(x)
        return self.head(F.leaky_relu(self.norm(x), SLOPE).mean((2, 3)))


class WideBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))); where the shape changes, x is a 1 x 1 convolution of act(norm(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(min(groups, inputs), inputs), nn.GroupNorm(groups, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        other = inputs != outputs or stride > 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if other else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = F.leaky_relu(self.norm1(x_BCHW), SLOPE)
        before = x_BCHW if self.shortcut is None else self.shortcut(h)
        return before + self.conv2(F.leaky_relu(self.norm2(self.conv1(h)), SLOPE))
