"""Distributions of the time t of a noise path in training.

uniform; logit-normal, t = sigmoid(mean + deviation n) (Esser and others, 2024); log-normal, sigma / alpha =
exp(mean + deviation n) (Karras and others, 2022); n is a standard normal number.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from sanbu.config import Choice
from sanbu.noise import Noise
from sanbu.paths import NoisePath


class TimesConfig(Choice):
    """The distribution of times."""

    table: ClassVar[str] = "sanbu.objectives:TIMES"

    def draw(self, path: NoisePath, noise: Noise, rows: int) -> Tensor:
        """One time per row, float32 [B]."""
        raise NotImplementedError


class Uniform(TimesConfig):
    """Uniform along the path."""

    kind: Literal["uniform"] = "uniform"

    def draw(self, path: NoisePath, noise: Noise, rows: int) -> Tensor:
        return path.place(noise.uniform(rows))


class LogitNormal(TimesConfig):
    """sigmoid(mean + deviation n) along the path: more in the middle (Esser and others, 2024)."""

    kind: Literal["logit-normal"] = "logit-normal"
    mean: float = 0.0
    deviation: float = Field(1.0, gt=0)

    def draw(self, path: NoisePath, noise: Noise, rows: int) -> Tensor:
        return path.place((self.mean + self.deviation * noise.normal(rows)).sigmoid())


class LogNormal(TimesConfig):
    """Where sigma / alpha is exp(mean + deviation n) (Karras and others, 2022)."""

    kind: Literal["log-normal"] = "log-normal"
    mean: float = -1.2
    deviation: float = Field(1.2, gt=0)

    def draw(self, path: NoisePath, noise: Noise, rows: int) -> Tensor:
        return path.time_at((self.mean + self.deviation * noise.normal(rows)).exp())
