"""Generators and critics (Goodfellow and others, 2014): a picture in one forward pass, judged by a second network.

Each generator has a `critic()` of its own kind for the objective to attach. Labels enter the critic by projection
(Miyato and Koyama, 2018).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.perceptron import LabelledPerceptron
from sanbu.models.model import PictureConfig, one_picture
from sanbu.space import Space


class Generator(nn.Module):
    """noise_BZ and label_B -> a picture in (-1, 1)."""

    def __init__(self, body: nn.Module, config: PerceptronGAN | DCGAN, space: Space) -> None:
        super().__init__()
        self.body, self.latent = body, (config.latent,)
        self.config, self.space = config, space

    def forward(self, noise_BZ: Tensor, label_B: Tensor) -> Tensor:
        return self.body(noise_BZ, label_B).float().tanh()

    def draw(self, noise_BZ: Tensor, label_B: Tensor) -> Tensor:
        """The picture of each noise vector."""
        return self(noise_BZ, label_B)

    def critic(self) -> nn.Module:
        """A critic of the same kind and width."""
        return self.config.critic(self.space)


class PerceptronGAN(PictureConfig):
    """Generator and critic of perceptrons, for small pictures."""

    kind: Literal["perceptron-gan"] = "perceptron-gan"
    family: ClassVar[str] = "generator"
    latent: int = Field(32, ge=1, description="size of the noise vector")
    dropout: float = Field(0.0, ge=0, lt=1)

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture.new_zeros(1, self.latent), label

    def build(self, space: Space) -> nn.Module:
        return perceptron_generator(self, space)

    def critic(self, space: Space) -> nn.Module:
        """The critic for this generator."""
        return PerceptronCritic(self, space)


class PerceptronCritic(nn.Module):
    """A perceptron on the flattened pixels. No minibatch features, which would couple the rows of a batch."""

    def __init__(self, config: PerceptronGAN, space: Space) -> None:
        super().__init__()
        self.label = nn.Embedding(space.classes + 1, config.width)
        sizes = [math.prod(space.shape), *[config.width] * (config.layers + 1)]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.last = nn.Linear(config.width, 1)

    def forward(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        x_BD = x_BCHW.flatten(1)
        for layer in self.layers:
            x_BD = F.leaky_relu(layer(x_BD), 0.2)
        projection_B = (x_BD * self.label(label_B)).sum(1) / x_BD.shape[1] ** 0.5
        return (self.last(x_BD)[:, 0] + projection_B).float()


def perceptron_generator(config: PerceptronGAN, space: Space) -> Generator:
    """A generator for small pictures."""
    body = LabelledPerceptron(config.latent, space.shape, config.width, config.layers, space.classes, config.dropout)
    return Generator(body, config, space)


class DCGAN(PictureConfig):
    """Generator and critic of convolutions."""

    kind: Literal["dcgan"] = "dcgan"
    family: ClassVar[str] = "generator"
    latent: int = Field(64, ge=1, description="size of the noise vector")

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture.new_zeros(1, self.latent), label

    def build(self, space: Space) -> nn.Module:
        return dcgan(self, space)

    def critic(self, space: Space) -> nn.Module:
        """The critic for this generator."""
        return ConvolutionCritic(self, space)


class Upsampler(nn.Module):
    """The generator of DCGAN, with residual blocks: a small map, doubled repeatedly (Radford and others, 2016)."""

    def __init__(self, config: DCGAN, space: Space) -> None:
        super().__init__()
        channels, self.height, self.width = space.shape
        self.times = doublings(space)
        factor = 2**self.times
        self.start = (math.ceil(self.height / factor), math.ceil(self.width / factor))
        wide = config.width * 2**self.times
        self.label = nn.Embedding(space.classes + 1, config.latent)
        self.first = nn.Linear(2 * config.latent, wide * math.prod(self.start))
        widths = [wide >> i for i in range(self.times + 1)]
        self.blocks = nn.ModuleList(UpBlock(i, o) for i, o in pairwise(widths))
        self.norm = nn.GroupNorm(1, config.width)
        self.last = nn.Conv2d(config.width, channels, 3, padding=1)

    def forward(self, noise_BZ: Tensor, label_B: Tensor) -> Tensor:
        inputs = torch.cat((noise_BZ, self.label(label_B)), 1)
        x = self.first(inputs).unflatten(1, (-1, *self.start))
        for block in self.blocks:
            x = block(x)
        return self.last(F.silu(self.norm(x)))[:, :, : self.height, : self.width]


class UpBlock(nn.Module):
    """Doubles height and width; the residual has two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, inputs), nn.GroupNorm(1, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        large = F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")
        h = self.conv1(F.silu(self.norm1(large)))
        return self.shortcut(large) + self.conv2(F.silu(self.norm2(h)))


class ConvolutionCritic(nn.Module):
    """Convolutions of stride 2, then a projection on the embedding of the label."""

    def __init__(self, config: DCGAN, space: Space) -> None:
        super().__init__()
        times = doublings(space)
        widths = [config.width << i for i in range(times + 1)]
        self.first = nn.Conv2d(space.shape[0], widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1) for i, o in pairwise(widths))
        self.label = nn.Embedding(space.classes + 1, widths[-1])
        self.last = nn.Linear(widths[-1], 1)

    def forward(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x_BCHW), 0.2)
        for block in self.blocks:
            x = F.leaky_relu(block(x), 0.2)
        x_BD = x.sum((2, 3)) / (x.shape[2] * x.shape[3]) ** 0.5
        projection_B = (x_BD * self.label(label_B)).sum(1) / x_BD.shape[1] ** 0.5
        return (self.last(x_BD)[:, 0] + projection_B).float()


def doublings(space: Space) -> int:
    """How often a map of about 4 x 4 must double to reach the picture size."""
    shorter = min(space.shape[1:])
    return max(1, math.floor(math.log2(shorter / 4 + 1e-9))) if shorter >= 8 else 1


def dcgan(config: DCGAN, space: Space) -> Generator:
    """A generator for pictures of any size."""
    return Generator(Upsampler(config, space), config, space)
