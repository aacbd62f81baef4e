"""Learning-rate schedules: functions from the number of completed steps to a factor of the peak learning rate.

constant; linear decay; cosine, final + (1 - final) (1 + cos(pi progress)) / 2 (Loshchilov and Hutter, 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field

from sanbu.config import Choice

Rate = Callable[[int], float]


def warm(step: int, warmup_steps: float) -> float:
    """Linear warmup from 1 / warmup_steps to 1, so that the first update is not at rate 0."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps >= 1 else 1.0


class RateConfig(Choice):
    """A learning-rate schedule, as a factor of the peak."""

    table: ClassVar[str] = "sanbu.optimizers:RATES"

    def build(self, steps: int) -> Callable[[int], float]:
        raise NotImplementedError


class ConstantRate(RateConfig):
    """Linear warmup, then constant."""

    kind: Literal["constant"] = "constant"
    warmup: float = Field(0.0, ge=0, le=1, description="warmup as a fraction of the steps")

    def build(self, steps: int) -> Callable[[int], float]:
        return constant(steps, self.warmup)


def constant(steps: int, warmup: float) -> Rate:
    """Warm up over a fraction of the steps, then 1."""
    return lambda step: warm(step, warmup * steps)


class LinearRate(RateConfig):
    """Linear warmup, constant, then linear decay."""

    kind: Literal["linear"] = "linear"
    warmup: float = Field(0.02, ge=0, le=1, description="warmup as a fraction of the steps")
    hold: float = Field(0.0, ge=0, le=1, description="time at the peak, as a fraction of the steps")
    final: float = Field(0.0, ge=0, le=1, description="final rate as a fraction of the peak")

    def build(self, steps: int) -> Callable[[int], float]:
        return linear(steps, self.warmup, self.hold, self.final)


def linear(steps: int, warmup: float, hold: float, final: float) -> Rate:
    """Warm up, hold at 1, then fall linearly to `final` at the last step."""

    def rate(step: int) -> float:
        start = (warmup + hold) * steps
        progress = min(1.0, max(0.0, (step + 1 - start) / max(steps - start, 1)))
        return warm(step, warmup * steps) * (1 - (1 - final) * progress)

    return rate


class CosineRate(RateConfig):
    """Linear warmup, then cosine decay (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = Field(0.02, ge=0, le=1, description="warmup as a fraction of the steps")
    final: float = Field(0.1, ge=0, le=1, description="final rate as a fraction of the peak")

    def build(self, steps: int) -> Callable[[int], float]:
        return cosine(steps, self.warmup, self.final)


def cosine(steps: int, warmup: float, final: float) -> Rate:
    """Warm up, then final + (1 - final) (1 + cos(pi progress)) / 2."""

    def rate(step: int) -> float:
        start = warmup * steps
        progress = min(1.0, max(0.0, (step - start) / max(steps - start, 1)))
        fallen = (1 + math.cos(math.pi * progress)) / 2
        return warm(step, start) * (final + (1 - final) * fallen)

    return rate
