"""HiFi-GAN's generator: transposed convolutions up to the rate of samples, each followed by the mean of residual
blocks with several kernels and dilations (Kong, Kim and Bae, 2020).

Modules have the names of the original project, so that its files load (`sanbu import`). Slopes of the leaky ReLUs are
0.1, and 0.01 before the last convolution, as there.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from sanbu.layers.spectrogram import Mel
from sanbu.models.vocoders.vocoder import Stream, VocoderConfig, Windowed
from sanbu.space import Space

SLOPE = 0.1
FIELDS = ("resblock", "rates", "kernels", "width", "block_kernels", "dilations")
VERSIONS = {  # as published: V1, V2, V3
    "v1": ("1", (8, 8, 2, 2), (16, 16, 4, 4), 512, (3, 7, 11), ((1, 3, 5),) * 3),
    "v2": ("1", (8, 8, 2, 2), (16, 16, 4, 4), 128, (3, 7, 11), ((1, 3, 5),) * 3),
    "v3": ("2", (8, 8, 4), (16, 16, 8), 256, (3, 5, 7), ((1, 2), (2, 6), (3, 12))),
}


class HifiGan(VocoderConfig):
    """HiFi-GAN's generator; the defaults are V1."""

    family: ClassVar[str] = "vocoder"
    kind: Literal["hifigan"] = "hifigan"
    resblock: Literal["1", "2"] = Field("1", description="type of the residual blocks")
    rates: tuple[int, ...] = Field((8, 8, 2, 2), description="factors of upsampling; their product is the hop")
    kernels: tuple[int, ...] = Field((16, 16, 4, 4), description="kernels of the transposed convolutions")
    width: int = Field(512, ge=2, description="channels before the first upsampling; halved by each")
    block_kernels: tuple[int, ...] = Field((3, 7, 11), description="kernels of the residual blocks")
    dilations: tuple[tuple[int, ...], ...] = Field(((1, 3, 5),) * 3, description="dilations, by kernel")

    @classmethod
    def version(cls, name: str) -> HifiGan:
        """v1, v2 or v3 of the paper."""
        fields: dict[str, Any] = dict(zip(FIELDS, VERSIONS[name], strict=True))
        return cls(**fields)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len(self.kernels) != len(self.rates):
            raise ValueError(f"kernels and rates: given {len(self.kernels)} and {len(self.rates)}, must be as many")
        if len(self.dilations) != len(self.block_kernels):
            raise ValueError("dilations and block_kernels: must be as many")
        for kernel, rate in zip(self.kernels, self.rates, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ValueError(f"kernels: given {kernel} at rate {rate}; must be the rate plus an even number")
        if any(kernel % 2 == 0 for kernel in self.block_kernels):
            raise ValueError(f"block_kernels: given {list(self.block_kernels)}, allowed: odd numbers")
        if self.width % 2 ** len(self.rates):
            raise ValueError(f"width: given {self.width}, must be a multiple of {2 ** len(self.rates)}")
        return self

    def check(self, space: Space) -> None:
        super().check(space)
        if math.prod(self.rates) != space.mel.hop:
            raise ValueError(
                f"model.rates: given {list(self.rates)}, product {math.prod(self.rates)}, but the hop of the data's"
                f" mel is {space.mel.hop}"
            )

    def build(self, space: Space) -> nn.Module:
        return Generator(self, space.mel)

    def reach(self) -> int:
        """The frames on each side that a frame's samples depend on."""
        frames, factor = 3.0, 1
        for kernel, rate in zip(self.kernels, self.rates, strict=True):
            frames += -(-(kernel - rate) // (2 * rate)) / factor + 1 / factor
            factor *= rate
            pairs = zip(self.block_kernels, self.dilations, strict=True)
            frames += max(self.block_reach(size, steps) for size, steps in pairs) / factor
        return math.ceil(frames + 3 / factor)

    def block_reach(self, kernel: int, dilations: tuple[int, ...]) -> int:
        """The samples on each side that a residual block sees."""
        plain = len(dilations) if self.resblock == "1" else 0
        return (kernel - 1) // 2 * (sum(dilations) + plain)


def convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1, small: bool = True) -> nn.Module:
    """A weight-normalised convolution that keeps the length. small: initial weights of deviation 0.01."""
    layer = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)
    return normalised(layer, small)


def normalised(layer: nn.Module, small: bool = True) -> nn.Module:
    """The layer with weight normalisation (Salimans and Kingma, 2016)."""
    weight = layer.weight
    if small and isinstance(weight, Tensor):
        nn.init.normal_(weight, 0.0, 0.01)
    return weight_norm(layer)


class PairedBlock(nn.Module):
    """Type 1: x + plain(dilated(x)) for each dilation, with a leaky ReLU before each convolution."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(convolution(width, width, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(convolution(width, width, kernel) for _ in dilations)

    def forward(self, x_BWN: Tensor) -> Tensor:
        """Shape kept."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x_BWN = x_BWN + plain(F.leaky_relu(dilated(F.leaky_relu(x_BWN, SLOPE)), SLOPE))
        return x_BWN


class SingleBlock(nn.Module):
    """Type 2: x + dilated(x) for each dilation."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convolution(width, width, kernel, dilation) for dilation in dilations)

    def forward(self, x_BWN: Tensor) -> Tensor:
        """Shape kept."""
        for dilated in self.convs:
            x_BWN = x_BWN + dilated(F.leaky_relu(x_BWN, SLOPE))
        return x_BWN


class Generator(nn.Module):
    """wave [B, F hop] of mel [B, mels, F]."""

    def __init__(self, config: HifiGan, mel: Mel) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        block = PairedBlock if config.resblock == "1" else SingleBlock
        width = config.width
        self.conv_pre = convolution(mel.mels, width, 7, small=False)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for kernel, rate in zip(config.kernels, config.rates, strict=True):
            up = nn.ConvTranspose1d(width, width // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(normalised(up))
            width //= 2
            for size, steps in zip(config.block_kernels, config.dilations, strict=True):
                self.resblocks.append(block(width, size, steps))
        self.conv_post = convolution(width, 1, 7)

    def forward(self, mel: Tensor) -> Tensor:
        x_BWN, count = self.conv_pre(mel), len(self.config.block_kernels)
        for stage, up in enumerate(self.ups):
            x_BWN = up(F.leaky_relu(x_BWN, SLOPE))
            blocks = self.resblocks[stage * count : (stage + 1) * count]
            total = blocks[0](x_BWN)
            for block in blocks[1:]:
                total = total + block(x_BWN)
            x_BWN = total / count
        return torch.tanh(self.conv_post(F.leaky_relu(x_BWN)))[:, 0]

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """The wave; nothing is random. The normalised weights are computed once."""
        with parametrize.cached():
            return self(mel)

    def stream(self, seeds: Tensor) -> Stream:
        """Pieces drawn with the context that a frame sees."""
        reach = self.config.reach()
        return Windowed(self, seeds, reach, reach)
