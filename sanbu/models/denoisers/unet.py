"""The U-Net of DDPM: downsampling, middle, upsampling with skip connections (Ho, Jain and Abbeel, 2020).

The architecture is that of UNet2DModel in diffusers, so weights convert both ways. Pictures of any size are padded to a
multiple and cropped at the end.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.config import Positive
from sanbu.layers.conditioning import Condition
from sanbu.layers.residual import Double, Halve, HalveFromCorner, PixelAttention, ResidualBlock, padded
from sanbu.models.denoisers.denoiser import DenoiserConfig
from sanbu.models.model import divisible
from sanbu.space import Space


class Resolution(nn.Module):
    """Residual blocks at one resolution, optional attention after each, and an optional change of resolution."""

    def __init__(self, blocks: list[ResidualBlock], attentions: list[PixelAttention], change: nn.Module | None) -> None:
        super().__init__()
        self.blocks, self.attentions, self.change = nn.ModuleList(blocks), nn.ModuleList(attentions), change

    def each(self, index: int, x_BCHW: Tensor, condition_BE: Tensor) -> Tensor:
        """One block and its attention."""
        x_BCHW = self.blocks[index](x_BCHW, condition_BE)
        return self.attentions[index](x_BCHW) if self.attentions else x_BCHW


class UNet(DenoiserConfig):
    """The U-Net of DDPM."""

    kind: Literal["unet"] = "unet"
    layers: int = Field(1, ge=1, description="residual blocks per resolution")
    multipliers: tuple[Positive, ...] = Field((1, 2), min_length=1, description="widths / model.width, by resolution")
    attention: tuple[int, ...] = Field((1,), description="resolutions with attention, counted from 0, the full one")
    head_width: int = Field(8, ge=1, description="width of an attention head")
    groups: int = Field(8, ge=1, description="groups of the group norms")
    dropout: float = Field(0.0, ge=0, lt=1)
    epsilon: float = Field(1e-5, gt=0, description="epsilon of the group norms")
    padding: Literal["all", "corner"] = Field(
        "all", description="zeros around what is halved: on all sides, or below and to the right only"
    )
    wave_shift: float = Field(0.0, ge=0, description="shift in the frequencies of the time embedding; see `waves`")

    def check(self, space: Space) -> None:
        super().check(space)
        divisible(self.width, self.groups)
        if self.wave_shift and self.wave_shift >= self.width // 2:
            raise ValueError(
                f"model.wave_shift: given {self.wave_shift:g}, allowed: less than half of model.width, {self.width}"
            )

    def network(self, space: Space) -> nn.Module:
        return UNetNetwork(self, space)


class UNetNetwork(nn.Module):
    """x_BCHW, clock_B, label_B -> a picture of the same shape."""

    down: Any
    up: Any

    def __init__(self, config: UNet, space: Space) -> None:
        super().__init__()
        channels, groups, told = space.shape[0], config.groups, 4 * config.width
        widths = [config.width * times for times in config.multipliers]

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, groups, told, config.dropout, config.epsilon)

        def attention(wide: int) -> PixelAttention:
            return PixelAttention(wide, config.head_width, groups, config.epsilon)

        def attentions(level: int, count: int) -> list[PixelAttention]:
            return [attention(widths[level]) for _ in range(count)] if level in config.attention else []

        halve = {"all": Halve, "corner": HalveFromCorner}[config.padding]
        self.condition = Condition(config.width, told, space.classes, config.wave_shift)
        self.first = nn.Conv2d(channels, config.width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        seen, last, levels = [config.width], config.width, len(widths)
        for level, wide in enumerate(widths):
            blocks = [block(last if i == 0 else wide, wide) for i in range(config.layers)]
            ends = level == levels - 1
            self.down.append(Resolution(blocks, attentions(level, config.layers), None if ends else halve(wide)))
            seen += [wide] * (config.layers + (not ends))
            last = wide
        self.middle = nn.ModuleList((block(last, last), attention(last), block(last, last)))
        for level, wide in reversed(list(enumerate(widths))):
            inputs = [last] + [wide] * config.layers
            blocks = [block(size + seen.pop(), wide) for size in inputs]
            self.up.append(Resolution(blocks, attentions(level, config.layers + 1), Double(wide) if level else None))
            last = wide
        self.norm = nn.GroupNorm(groups, config.width, config.epsilon)
        self.last = nn.Conv2d(config.width, channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BCHW: Tensor, clock_B: Tensor, label_B: Tensor) -> Tensor:
        condition_BE = F.silu(self.condition(clock_B, label_B))
        height, width = x_BCHW.shape[2:]
        x = self.first(padded(x_BCHW, 2 ** (len(self.down) - 1)))
        seen = [x]
        for stage in self.down:
            for index in range(len(stage.blocks)):
                x = stage.each(index, x, condition_BE)
                seen.append(x)
            if stage.change is not None:
                x = stage.change(x)
                seen.append(x)
        first, attention, second = self.middle
        x = second(attention(first(x, condition_BE)), condition_BE)
        for stage in self.up:
            for index in range(len(stage.blocks)):
                x = stage.each(index, torch.cat((x, seen.pop()), 1), condition_BE)
            if stage.change is not None:
                x = stage.change(x)
        return self.last(F.silu(self.norm(x)))[:, :, :height, :width]
