"""Rotary positions (Su and others, 2021), in the half-split layout of LLaMA checkpoints, and their scalings.

A scaling changes the frequencies, so that a model reads sequences longer than those it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sanbu.config import Choice, Positive

Rescale = Callable[[Tensor], Tensor]


class ScalingConfig(Choice):
    """A scaling of the frequencies of rotary positions."""

    table: ClassVar[str] = "sanbu.layers:SCALINGS"

    def build(self) -> Rescale:
        """frequencies_F, in radians per position, to scaled ones."""
        raise NotImplementedError


class LinearScaling(ScalingConfig):
    """Every frequency divided by one factor (Chen and others, 2023)."""

    kind: Literal["linear"] = "linear"
    factor: float = Field(gt=0)

    def build(self) -> Rescale:
        return lambda frequencies_F: frequencies_F / self.factor


class Llama3Scaling(ScalingConfig):
    """Low frequencies divided by a factor, high ones kept, interpolated in between (Llama 3.1, 2024)."""

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(8.0, gt=0)
    low: float = Field(1.0, gt=0, description="turns in the original context below which a frequency is divided")
    high: float = Field(4.0, gt=0, description="turns in the original context above which a frequency is kept")
    original: Positive = Field(8192, description="longest sequence before the scaling")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high <= self.low:
            raise ValueError(f"high: given {self.high:g}, but it must be more than low, {self.low:g}")
        return self

    def build(self) -> Rescale:
        def rescale(frequencies_F: Tensor) -> Tensor:
            turns_F = frequencies_F * self.original / (2 * math.pi)
            kept_F = ((turns_F - self.low) / (self.high - self.low)).clamp(0, 1)
            return (1 - kept_F) * frequencies_F / self.factor + kept_F * frequencies_F

        return rescale


class Rotary(nn.Module):
    """Rotate each pair (x_i, x_{i + R/2}) of the first R channels by the angle position * base^(-2i/R).

    x_BTNH in and out. rotated: R, at most H; channels after it are unchanged. rescale: of the frequencies, or None.
    """

    def __init__(self, rotated: int, base: float = 10000.0, rescale: Rescale | None = None) -> None:
        super().__init__()
        self.rotated, self.base, self.rescale = rotated, base, rescale

    def forward(self, x_BTNH: Tensor, positions_BT: Tensor) -> Tensor:
        half = self.rotated // 2
        exponents = torch.arange(half, device=x_BTNH.device, dtype=torch.float32) / half
        frequencies = self.base**-exponents
        if self.rescale is not None:
            frequencies = self.rescale(frequencies)
        angles = positions_BT[:, :, None, None].float() * frequencies
        cosine, sine = angles.cos(), angles.sin()
        a, b = x_BTNH[..., : self.rotated].float().split(half, dim=-1)
        turned = torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1).to(x_BTNH.dtype)
        return turned if self.rotated == x_BTNH.shape[-1] else torch.cat((turned, x_BTNH[..., self.rotated :]), dim=-1)
