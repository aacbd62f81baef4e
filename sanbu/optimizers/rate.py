"""Learning-rate shapes: functions from the number of updates done to a factor of the peak."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field

from sanbu.config import Choice

Rate = Callable[[int], float]


def warm(step: int, warmup_steps: float) -> float:
    """A ramp from 1/warmup to 1; the first update is never at rate zero."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps >= 1 else 1.0


class RateConfig(Choice):
    """How the learning rate moves over a run, as a factor of its peak."""

    table: ClassVar[str] = "sanbu.optimizers:RATES"

    def build(self, steps: int) -> Callable[[int], float]:
        raise NotImplementedError


class ConstantRate(RateConfig):
    """Warm up linearly, then stay."""

    kind: Literal["constant"] = "constant"
    warmup: float = Field(0.0, ge=0, le=1, description="fraction of the steps spent warming up")

    def build(self, steps: int) -> Callable[[int], float]:
        return constant(steps, self.warmup)


def constant(steps: int, warmup: float) -> Rate:
    """Warm up over a fraction of the steps, then 1."""
    return lambda step: warm(step, warmup * steps)


class LinearRate(RateConfig):
    """Warm up linearly, hold, then cool down linearly."""

    kind: Literal["linear"] = "linear"
    warmup: float = Field(0.02, ge=0, le=1, description="fraction of the steps spent warming up")
    hold: float = Field(0.0, ge=0, le=1, description="fraction of the steps at the peak")
    final: float = Field(0.0, ge=0, le=1, description="last rate as a fraction of the peak")

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
    """Warm up linearly, then follow half a cosine (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = Field(0.02, ge=0, le=1, description="fraction of the steps spent warming up")
    final: float = Field(0.1, ge=0, le=1, description="last rate as a fraction of the peak")

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
