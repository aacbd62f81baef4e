"""Finite scalar quantization: every number of a vector is bounded and rounded to one of a few levels.

u = (L - 1) (tanh(z) + 1) / 2,    digit = round(u),    value = 2 digit / (L - 1) - 1

A codebook is a group of numbers, and its code the digits read as one number in mixed radix. There is nothing to learn,
so no code can die (Mentzer and others, "Finite scalar quantization: VQ-VAE made simple", 2024; the levels lie
symmetrically here).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from sanbu.layers.quantizers.quantizer import Quantized, Quantizer, QuantizerConfig


class Fsq(QuantizerConfig):
    """Finite scalar quantization: nothing to learn, all codes in use."""

    kind: Literal["fsq"] = "fsq"
    levels: tuple[int, ...] = Field(
        (8, 8, 8), description="levels of each number of a codebook; its codes: the product"
    )

    @field_validator("levels", mode="after")
    @classmethod
    def _possible(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not levels or min(levels) < 2:
            raise ValueError("at least one number, with at least 2 levels each, is needed")
        return levels

    @property
    def codes(self) -> int:
        return math.prod(self.levels)

    def build(self) -> Quantizer:
        return FiniteScalars(self)


class FiniteScalars(Quantizer):
    """Rounds K groups of numbers; a group is a codebook."""

    levels: Tensor
    places: Tensor

    def __init__(self, config: Fsq) -> None:
        super().__init__(config.codebooks, config.codes, config.codebooks * len(config.levels))
        levels = torch.tensor(config.levels)
        places = torch.cat((torch.ones(1, dtype=torch.long), levels.cumprod(0)[:-1]))  # what a digit counts
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("places", places, persistent=False)

    def forward(self, vectors_BFD: Tensor, depths_B: Tensor | None = None) -> Quantized:
        """All codebooks are used; nothing has to commit."""
        u = self.bounded(vectors_BFD)
        digits = u.round()
        values = self.to_values(u + (digits - u).detach())
        codes_BKF = (digits.long() * self.places).sum(-1).transpose(1, 2)
        return Quantized(values, codes_BKF, values.new_zeros(len(values)))

    def vectors(self, codes_BKF: Tensor) -> Tensor:
        codes_BFK = self.checked(codes_BKF).transpose(1, 2)
        digits = codes_BFK[..., None] // self.places % self.levels
        return self.to_values(digits)

    def unquantized(self, vectors_BFD: Tensor) -> Tensor:
        return self.to_values(self.bounded(vectors_BFD))

    def bounded(self, vectors_BFD: Tensor) -> Tensor:
        """Numbers between 0 and levels - 1, [B, F, K, D / K]."""
        groups = vectors_BFD.float().unflatten(-1, (self.codebooks, -1))
        return (self.levels - 1) * (groups.tanh() + 1) / 2

    def to_values(self, digits: Tensor) -> Tensor:
        """Digits [B, F, K, D / K] as values in [-1, 1], [B, F, D]."""
        return (2 * digits / (self.levels - 1) - 1).flatten(-2)
