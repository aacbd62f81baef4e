"""Variational autoencoders: a picture from a latent vector with a Gaussian prior (Kingma and Welling, 2014).

`forward` gives the terms of the bound; `draw` gives the picture of a latent. p(x | z) is a discretised logistic
distribution around the decoder's picture, with one scale per channel; with two levels it is Bernoulli. Shapes: B rows,
K draws of the latent per row, Z its size.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.config import Positive
from sanbu.layers.perceptron import LabelledPerceptron
from sanbu.layers.pixel_distributions import logistic_mass
from sanbu.layers.residual import Double, HalveFromCorner, PixelAttention, ResidualBlock, padded
from sanbu.models.model import PictureConfig, divisible, one_picture
from sanbu.space import Space


class VAE(nn.Module):
    """encoder(image, label) -> mean and log-deviation [B, 2, *latent]; decoder(latent, label) -> picture."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: tuple[int, ...], space: Space) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.latent, self.levels = latent, space.vocabulary
        self.log_scale = nn.Parameter(torch.full((space.shape[0], 1, 1), -1.5))

    def forward(self, levels_BCHW: Tensor, label_B: Tensor, noise_BKZ: Tensor) -> Tensor:
        """[B, K, 3]: log p(x | z), log q(z | x) - log p(z), and KL(q | p) in closed form, in nats."""
        mean, log_deviation = self.encode(levels_BCHW, label_B)
        draws = noise_BKZ.shape[1]
        noise = noise_BKZ.view(-1, draws, *self.latent)
        z = mean[:, None] + log_deviation.exp()[:, None] * noise
        decoded = self.decoder(z.flatten(0, 1), label_B.repeat_interleave(draws)).float()
        pictures = decoded.unflatten(0, (-1, draws))
        seen = (
            logistic_mass(levels_BCHW[:, None], pictures, self.log_scale.clamp(min=-7), self.levels).flatten(2).sum(2)
        )
        ratio = (z.square() - noise_BKZ.view_as(z).square()) / 2 - log_deviation[:, None]
        kl = (mean.square() + (2 * log_deviation).exp() - 1) / 2 - log_deviation
        ratio_BK, kl_B = ratio.flatten(2).sum(2), kl.flatten(1).sum(1)
        return torch.stack((seen, ratio_BK, kl_B[:, None].expand_as(seen)), 2)

    def encode(self, levels_BCHW: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation of q(z | x), [B, *latent] each."""
        unit = levels_BCHW.float() * (2 / (self.levels - 1)) - 1
        encoded = self.encoder(unit, label_B).float()
        mean, log_deviation = encoded.unflatten(1, (2, self.latent[0])).unbind(1)
        return mean, log_deviation.clamp(-15, 10)  # the bounds of AutoencoderKL

    def draw(self, noise_BZ: Tensor, label_B: Tensor) -> Tensor:
        """The most likely picture of each latent, [B, C, H, W] in [-1, 1]."""
        picture = self.decoder(noise_BZ.view(-1, *self.latent), label_B)
        if self.levels == 2:  # the mean of a Bernoulli distribution
            return 2 * torch.sigmoid(picture * (-self.log_scale.clamp(min=-7)).exp()) - 1
        return picture.clamp(-1, 1)


class PerceptronVAE(PictureConfig):
    """Variational autoencoder of perceptrons, for small pictures."""

    kind: Literal["perceptron-vae"] = "perceptron-vae"
    family: ClassVar[str] = "latent"
    latent: int = Field(16, ge=1, description="size of the latent vector")
    dropout: float = Field(0.0, ge=0, lt=1)

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture.long(), label, picture.new_zeros(1, 1, self.latent)

    def build(self, space: Space) -> nn.Module:
        return perceptron_vae(self, space)


def perceptron_vae(config: PerceptronVAE, space: Space) -> VAE:
    """A VAE for small pictures."""
    pixels, latent = math.prod(space.shape), config.latent

    def part(inputs: int, outputs: tuple[int, ...]) -> LabelledPerceptron:
        return LabelledPerceptron(inputs, outputs, config.width, config.layers, space.classes, config.dropout)

    return VAE(part(pixels, (2 * latent,)), part(latent, space.shape), (latent,), space)


# -- convolutions, in the shape of diffusers' AutoencoderKL -----------------------------------------------------------


class Autoencoder(PictureConfig):
    """Convolutional variational autoencoder; the latent is a smaller picture (the architecture of AutoencoderKL)."""

    kind: Literal["autoencoder"] = "autoencoder"
    family: ClassVar[str] = "latent"
    layers: int = Field(1, ge=1, description="residual blocks per resolution")
    multipliers: tuple[Positive, ...] = Field((1, 2), min_length=1, description="widths / model.width, by resolution")
    latent: int = Field(4, ge=1, description="channels of the latent")
    groups: int = Field(8, ge=1, description="groups of the group norms")

    def check(self, space: Space) -> None:
        super().check(space)
        divisible(self.width, self.groups)

    def example(self, space: Space) -> tuple[Tensor, ...]:
        picture, label = one_picture(space)
        return picture.long(), label, picture.new_zeros(1, 1, math.prod(latent_shape(self, space)))

    def build(self, space: Space) -> nn.Module:
        return autoencoder(self, space)


class PictureEncoder(nn.Module):
    """Picture -> mean and log-deviation of the latent, halving the resolution at each level."""

    def __init__(self, config: Autoencoder, space: Space) -> None:
        super().__init__()
        widths = [config.width * times for times in config.multipliers]
        groups, last = config.groups, widths[0]
        self.multiple = 2 ** (len(widths) - 1)
        self.first = nn.Conv2d(space.shape[0], last, 3, padding=1)
        self.down: Any = nn.ModuleList()
        for level, wide in enumerate(widths):
            blocks = [ResidualBlock(last if i == 0 else wide, wide, groups, epsilon=1e-6) for i in range(config.layers)]
            change: nn.Module = HalveFromCorner(wide) if level < len(widths) - 1 else nn.Identity()
            self.down.append(nn.Sequential(*blocks, change))
            last = wide
        self.middle = middle(last, groups)
        self.norm = nn.GroupNorm(groups, last, 1e-6)
        self.last = nn.Conv2d(last, 2 * config.latent, 3, padding=1)
        self.moments = nn.Conv2d(2 * config.latent, 2 * config.latent, 1)
        self.label = nn.Embedding(space.classes + 1, config.width)
        nn.init.zeros_(self.label.weight)

    def forward(self, x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        x = self.first(padded(x_BCHW, self.multiple)) + self.label(label_B)[..., None, None]
        for stage in self.down:
            x = stage(x)
        return self.moments(self.last(F.silu(self.norm(self.middle(x)))))


class PictureDecoder(nn.Module):
    """Latent -> picture, doubling the resolution at each level."""

    def __init__(self, config: Autoencoder, space: Space) -> None:
        super().__init__()
        widths = [config.width * times for times in config.multipliers]
        groups, last = config.groups, widths[-1]
        self.size = space.shape[1:]
        self.latent = nn.Conv2d(config.latent, config.latent, 1)
        self.first = nn.Conv2d(config.latent, last, 3, padding=1)
        self.middle = middle(last, groups)
        self.up = nn.ModuleList()
        for level, wide in reversed(list(enumerate(widths))):
            blocks = [
                ResidualBlock(last if i == 0 else wide, wide, groups, epsilon=1e-6) for i in range(config.layers + 1)
            ]
            self.up.append(nn.Sequential(*blocks, Double(wide) if level else nn.Identity()))
            last = wide
        self.norm = nn.GroupNorm(groups, last, 1e-6)
        self.last = nn.Conv2d(last, space.shape[0], 3, padding=1)
        self.label = nn.Embedding(space.classes + 1, config.latent)
        nn.init.zeros_(self.label.weight)

    def forward(self, z_BZHW: Tensor, label_B: Tensor) -> Tensor:
        z_BZHW = z_BZHW + self.label(label_B)[..., None, None]
        x = self.middle(self.first(self.latent(z_BZHW)))
        for stage in self.up:
            x = stage(x)
        height, width = self.size
        return self.last(F.silu(self.norm(x)))[:, :, :height, :width]


def middle(width: int, groups: int) -> nn.Sequential:
    """Residual block, attention with one head, residual block."""
    return nn.Sequential(
        ResidualBlock(width, width, groups, epsilon=1e-6),
        PixelAttention(width, width, groups, 1e-6),
        ResidualBlock(width, width, groups, epsilon=1e-6),
    )


def autoencoder(config: Autoencoder, space: Space) -> VAE:
    """A VAE for pictures of any size; the latent is a smaller picture."""
    return VAE(PictureEncoder(config, space), PictureDecoder(config, space), latent_shape(config, space), space)


def latent_shape(config: Autoencoder, space: Space) -> tuple[int, int, int]:
    """Channels, height and width of the latent."""
    times = 2 ** (len(config.multipliers) - 1)
    _, height, width = space.shape
    return config.latent, math.ceil(height / times), math.ceil(width / times)
